"""Abstract states: symbols, permutations, refusals."""

import pytest

from core.errors import UserError
from core.evaluation.ehrlich_function import SYMBOLS
from domains.bio.tokenizers.states import States


def test_states_are_printable_symbols_in_order() -> None:
    tokenizer = States()
    assert "".join(tokenizer.letters) == SYMBOLS and tokenizer.vocabulary.size == 32
    assert len(set(SYMBOLS)) == 32 and SYMBOLS.isalnum() and SYMBOLS.isascii()
    assert States(4).decode([3, 0, 2, 1]) == "DACB" and States(4).encode("DACB") == [3, 0, 2, 1]


def test_a_permutation_moves_ids_and_keeps_symbols() -> None:
    plain, moved, other = States(20), States(20, 3), States(20, 4)
    assert sorted(moved.letters) == sorted(plain.letters)
    assert plain.letters != moved.letters != other.letters and moved.letters == States(20, 3).letters
    assert moved.decode(moved.encode("ABCDT")) == "ABCDT" and moved.encode("ABCDT") != plain.encode("ABCDT")
    assert len({tokenizer.sha256("states") for tokenizer in (plain, moved, other)}) == 3
    assert States(**moved.settings()).letters == moved.letters


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"size": 1}, "size=1 is outside 2..32"), ({"size": 33}, "size=33"), ({"permutation": -1}, "-1 is no seed")],
)
def test_bad_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        States(**settings)


@pytest.mark.parametrize("text", ["ABI", "ab", "A-B", "A1", "É"])
def test_foreign_symbols_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="position"):
        States(8).encode(text)

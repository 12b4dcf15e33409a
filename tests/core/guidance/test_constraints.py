"""Members: how they are written, what they refuse, motifs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pytest
import torch

from core.errors import UserError
from core.guidance.constraint_set import ConstraintSet
from core.guidance.constraints._parse import parse_range
from core.guidance.constraints.base import Constraint
from core.guidance.constraints.contains import Contains
from core.guidance.constraints.forbid import Forbid
from core.guidance.constraints.length import Length
from core.registry import Paper, Registry
from core.tokenizers.base import Tokenizer, Vocabulary

REGISTRY: Registry[Constraint] = Registry("constraint", Constraint, "core.guidance.constraints")


class Letters(Tokenizer[str]):
    """Whatever tokens it is given; B stands for D or N where it is no letter itself."""

    paper = Paper("ours", "Toy alphabet")
    ambiguity = {"B": frozenset("DN"), "X": frozenset("DNPSC")}

    def __init__(self, letters: Sequence[str]) -> None:
        self._letters = tuple(letters)

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(len(self._letters))

    @property
    def letters(self) -> Sequence[str]:
        return self._letters

    def encode(self, value: str) -> list[int]:
        return [self._letters.index(letter) for letter in value]

    def decode(self, ids: Sequence[int], context: Any = None) -> str:
        return "".join(self._letters[i] for i in ids)

    def settings(self) -> Mapping[str, Any]:
        return {"letters": self._letters}


def build(item: str) -> Constraint:
    key, *arguments = item.split(":")
    return REGISTRY.get(key)(*arguments)


@pytest.mark.parametrize(
    "item",
    [
        "length:",
        "length:..",
        "length:9..3",
        "length:2.5",
        "length:-3..5",
        "length:a..b",
        "length:8..20:9",
        "length:8:9",
        "length:٣..٥",
        "alphabet:",
        "fixed:K3",
        "fixed:0K",
        "fixed:3K,,5C",
        "fixed:3K,3C",
        "fixed:3KK",
        "contains:",
        "contains:A(2",
        "contains:[ST",
        "contains:A(3,1)",
        "contains:A(0)",
        "contains:x(0,3)",
        "contains:<>",
        "contains:A>B",
        "contains:A--B",
        "contains:A(2000)",
        "contains:[G>]",
        "forbid:A*",
        "forbid:-A",
        "forbid:N:G",
        "repeat:0",
        "repeat:x",
        "repeat:2.0",
        "composition:KR",
        "composition:KR:0.2..1.5",
        "composition:KR:x",
        "composition:KR:1..2:10",
        "composition:KR:1..2:w=0",
        "composition:KR:0.5..0.2",
        "within:3",
        "within:-1:ACD",
        "within:x:ACD",
    ],
)
def test_bad_arguments_are_the_users_error_in_one_line(item: str) -> None:
    with pytest.raises(UserError, match=r"^constraint .+") as error:
        build(item)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", REGISTRY.keys())
def test_no_argument_at_all_is_the_users_error(key: str) -> None:
    with pytest.raises(UserError, match=f"^constraint {key}: .*write it as {key}:"):
        REGISTRY.get(key)()


@pytest.mark.parametrize(
    "item",
    ["alphabet:AO", "fixed:1O", "contains:AO", "forbid:[AO]", "composition:O:1..2", "within:1:AO", "forbid:a"],
)
def test_letters_outside_the_alphabet_are_refused(item: str) -> None:
    with pytest.raises(UserError, match="no letter '[Oa]' in the alphabet ACD"):
        ConstraintSet([build(item)], Letters("ACD"), [2, 3])


def test_alphabets_of_long_tokens_are_refused_by_letter_rules() -> None:
    with pytest.raises(UserError, match="'C4'"):
        ConstraintSet([build("forbid:A")], Letters(["A", "C4"]), [2])


@pytest.mark.parametrize("item", ["length:8..20", "fixed:3K,-1C", "forbid:N-{P}-[ST]", "composition:KR:0.2..0.5:w=10"])
def test_the_name_is_what_was_written(item: str) -> None:
    assert build(item).name == item


@pytest.mark.parametrize(
    ("text", "low", "high"), [("8..20", 8, 20), ("2..", 2, None), ("..5", None, 5), ("8-11", 8, 11), ("7", 7, 7)]
)
def test_ranges(text: str, low: int | None, high: int | None) -> None:
    bounds = parse_range(text, "length")
    assert (bounds.low, bounds.high, bounds.decimal) == (low, high, False)


def test_length_holds_at_its_bounds() -> None:
    checks = [Length("8-11").check("A" * n) for n in range(7, 13)]
    assert checks == [False, True, True, True, True, False]


def test_shares_are_exact() -> None:
    # 0.7 of 10 is 7.000000000000001 or 6.99... in floats.
    constraint = build("composition:A:0.7..0.7")
    assert constraint.check("A" * 7 + "C" * 3)
    assert ConstraintSet([constraint], Letters("AC"), range(1, 11)).feasible_lengths == (10,)


@pytest.mark.parametrize(
    ("motif", "holds", "lacks"),
    [
        ("N-{P}-[ST]", ["NDS", "PPNNSP"], ["NPS", "NDP", "NS"]),
        ("C-x(2,4)-C", ["CDDC", "CDDDC", "NCDNDDCN", "CCCC"], ["CC", "CDC", "CDDDDDC"]),
        ("N(2,3)-D.", ["NND", "NNND"], ["ND", "NDN"]),
        ("<x(2)-N", ["DDN", "NNND"], ["DN", "DDDN"]),
        ("N-P>", ["NP", "SNP"], ["NPS"]),
        ("<N-x(0,1)-S>", ["NS", "NDS"], ["NDDS", "DNS", "NSD"]),
        ("B-B", ["DN", "SNNS"], ["DS"]),
        ("N-X", ["NC"], ["N", "CN"]),
        ("NDS", ["NDS"], ["ND"]),
    ],
)
def test_motifs_in_check_and_automaton(motif: str, holds: list[str], lacks: list[str]) -> None:
    tokenizer = Letters("NDPSTC")
    bound = Contains(motif).bind(tokenizer)
    assert [bound.check(value) for value in holds + lacks] == [True] * len(holds) + [False] * len(lacks)
    for length in range(1, 6):
        ids = torch.tensor(list(product(range(6), repeat=length)))
        lengths = torch.full((len(ids),), length)
        held = torch.tensor([bound.check(tokenizer.decode(row)) for row in ids.tolist()])
        for constraint, expected in ((Contains(motif), held), (Forbid(motif), ~held)):
            if bool(expected.any()):
                accepted = ConstraintSet([constraint], tokenizer, [length]).feasible(ids, lengths)
                assert torch.equal(accepted, expected), (constraint.name, length)


def test_long_gaps_stay_small_at_short_lengths() -> None:
    tokenizer = Letters("ACDEFGHIKLMNPQRSTVWY")
    finger = Contains("C-x(2,4)-C-x(3)-[LIVMFYWC]-x(8)-H-x(3,5)-H")
    constraints = ConstraintSet([finger], tokenizer, [20, 21, 24])
    assert constraints.feasible_lengths == (21, 24)
    row = torch.zeros(50, 24, 20)
    settled = torch.full((50, 24), -1)
    drawn = constraints.draw(row, torch.full((50,), 24), torch.rand(50, 24, dtype=torch.double), settled)
    assert all(finger.check(tokenizer.decode(ids)) for ids in drawn.tolist())

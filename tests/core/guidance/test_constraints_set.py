"""Sets of constraints: conflicts, batches, tiny masses, the running state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch

from core.errors import UserError
from core.guidance import constraint_set as constraint_set_module
from core.guidance.constraint_set import ConstraintSet
from core.guidance.constraints._tables import Tables
from core.guidance.constraints.base import Constraint, violations
from core.registry import Paper, Registry
from core.tokenizers.base import Tokenizer, Vocabulary

REGISTRY: Registry[Constraint] = Registry("constraint", Constraint, "core.guidance.constraints")
RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
FIVE = ("length:6..12", "forbid:NG", "repeat:3", "composition:KR:0.2..0.5", "contains:W-x-L")


class Residues(Tokenizer[str]):
    """The twenty residues."""

    paper = Paper("ours", "Toy alphabet")

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(20)

    @property
    def letters(self) -> Sequence[str]:
        return tuple(RESIDUES)

    def encode(self, value: str) -> list[int]:
        return [RESIDUES.index(letter) for letter in value]

    def decode(self, ids: Sequence[int], context: Any = None) -> str:
        return "".join(RESIDUES[i] for i in ids)

    def settings(self) -> Mapping[str, Any]:
        return {}


def made(*items: str, lengths: Sequence[int] = range(1, 13)) -> ConstraintSet:
    members = [REGISTRY.get(key)(*arguments) for key, *arguments in (item.split(":") for item in items)]
    return ConstraintSet(members, Residues(), lengths)


def drawn(
    constraints: ConstraintSet, count: int, scale: float = 2.0
) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
    lengths = torch.tensor(constraints.feasible_lengths)[torch.randint(len(constraints.feasible_lengths), (count,))]
    width = int(lengths.max()) + 2
    uniform = torch.rand(count, width, dtype=torch.double)
    given = (torch.randn(count, width, 20) * scale, lengths, uniform, torch.full((count, width), -1))
    return constraints.draw(*given), lengths, given


def test_five_constraints_at_once_are_never_violated() -> None:
    constraints = made(*FIVE)
    assert constraints.feasible_lengths == tuple(range(6, 13))
    tokens, lengths, _ = drawn(constraints, 2000)
    written = [Residues().decode(row[:n]) for row, n in zip(tokens.tolist(), lengths.tolist(), strict=True)]
    assert violations(constraints.constraints, written) == []
    assert len(set(written)) > 1900
    beyond = torch.arange(tokens.shape[1]) >= lengths[:, None]
    assert bool((tokens[beyond] == 0).all())


def test_a_row_comes_out_the_same_alone_and_in_a_batch() -> None:
    constraints = made(*FIVE)
    tokens, lengths, given = drawn(constraints, 64)
    for row in range(64):
        alone = constraints.draw(
            *(part[row : row + 1, : int(lengths[row])] if part.ndim > 1 else part[row : row + 1] for part in given)
        )
        assert torch.equal(alone[0], tokens[row, : int(lengths[row])])


def test_laws_that_all_but_exclude_acceptance_are_still_drawn_from() -> None:
    constraints = made("contains:WW", "forbid:WWW")
    law = torch.zeros(200, 6, 20, dtype=torch.double)
    law[:, :, RESIDUES.index("W")] = -900.0
    lengths = torch.full((200,), 6)
    # Two W of six places, in a row: five ways, the other four letters free.
    expected = (
        torch.tensor(5.0).double().log()
        + 4 * torch.tensor(19.0).double().log()
        - 1800
        - 6 * torch.tensor(19.0).double().log()
    )
    assert torch.allclose(constraints.log_mass(law, lengths), expected.expand(200))
    tokens = constraints.draw(law, lengths, torch.rand(200, 6, dtype=torch.double), torch.full((200, 6), -1))
    written = [Residues().decode(row) for row in tokens.tolist()]
    assert violations(constraints.constraints, written) == []
    assert {text.index("WW") for text in written} == {0, 1, 2, 3, 4}
    assert all(text.count("W") == 2 for text in written)


def test_sums_of_probabilities_and_of_logarithms_agree() -> None:
    constraints = made(*FIVE)
    tables = Tables(constraints._layered[9], torch.device("cpu"))
    law = torch.randn(3, 9, 20, dtype=torch.double).log_softmax(-1)
    plain = tables._linear(law.exp())
    for row in range(3):
        for message, exact in zip(plain, tables._logarithmic(law[row]), strict=True):
            assert torch.allclose(message[:, row].log(), exact, atol=1e-10)


def test_feasible_sees_settled_sites() -> None:
    constraints = made("forbid:NG", "contains:WL", lengths=[4])
    rows = ["NG--", "N-GW", "--WL", "AAAA", "W---", "NN-G"]
    settled = torch.tensor([[RESIDUES.find(letter) for letter in row] for row in rows])
    assert constraints.feasible(settled, torch.full((6,), 4)).tolist() == [False, False, True, False, True, False]
    assert constraints.feasible(settled, torch.full((6,), 5)).tolist() == [False] * 6


@pytest.mark.parametrize("items", [("forbid:NG",), ()])
def test_a_row_without_a_completion_is_named(items: tuple[str, ...]) -> None:
    constraints = made(*items, lengths=[3])
    law = torch.zeros(3, 3, 20)
    law[2, 1] = -torch.inf
    given = (torch.full((3,), 3), torch.rand(3, 3, dtype=torch.double), torch.full((3, 3), -1))
    with pytest.raises(RuntimeError, match="^row 2: "):
        constraints.draw(law, *given)
    with pytest.raises(RuntimeError, match="^row 0: no sequence of length 4"):
        constraints.draw(torch.zeros(1, 4, 20), torch.tensor([4]), torch.rand(1, 4), torch.full((1, 4), -1))


@pytest.mark.parametrize(
    ("items", "culprits"),
    [
        (("repeat:2", "length:40..50"), ["length:40..50"]),
        (("repeat:3", "contains:KK", "forbid:KK"), ["contains:KK", "forbid:KK"]),
        (("alphabet:AC", "repeat:2", "contains:W"), ["alphabet:AC", "contains:W"]),
        (
            ("repeat:3", "fixed:1A,2C", "fixed:1A,2D"),
            ["fixed:1A,2C", "fixed:1A,2D"],
        ),
        # Any two of the three go together.
        (
            ("alphabet:AC", "forbid:CA", "length:2..3", "contains:A", "fixed:1C"),
            ["alphabet:AC", "forbid:CA", "contains:A", "fixed:1C"],
        ),
        (("within:1:AAAA", "length:5.."), ["within:1:AAAA", "length:5.."]),
        (("alphabet:A", "repeat:2", "length:3.."), ["alphabet:A", "repeat:2", "length:3.."]),
    ],
)
def test_conflicts_are_told_by_a_smallest_subset(items: tuple[str, ...], culprits: list[str]) -> None:
    with pytest.raises(UserError, match="no sequence of length 1 to 12") as error:
        made(*items)
    told = str(error.value)
    assert told.partition(": no sequence")[0].removeprefix("constraints ").removeprefix("constraint ") == " and ".join(
        culprits
    )


def test_too_many_states_name_the_large_constraint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constraint_set_module, "_MAX_STATES", 500)
    with pytest.raises(UserError, match="^constraint composition:KR:0.2..0.8:w=10: over 500 automaton states"):
        made("repeat:3", "composition:KR:0.2..0.8:w=10")
    with pytest.raises(UserError, match="^constraint repeat:3: over 500"):
        made("repeat:3", "composition:KR:0.2..0.5", lengths=[8])


def test_the_empty_set_lets_every_length_pass() -> None:
    constraints = made()
    assert constraints.feasible_lengths == tuple(range(1, 13))
    tokens, _, given = drawn(constraints, 10)
    again = made("length:1..12").draw(*given)
    assert torch.equal(tokens, again)


def test_running_states_fork_select_and_roll_back() -> None:
    constraints = made("forbid:NG", "length:2..5", "contains:W")
    n, g, w = (RESIDUES.index(letter) for letter in "NGW")
    start = constraints.start(3)
    assert constraints.allowed(start)[:, :20].all() and not constraints.allowed(start)[:, 20].any()
    first = constraints.advance(start, torch.tensor([n, w, g]))
    allowed = constraints.allowed(first)
    assert not allowed[0, g] and bool(allowed[1, g])
    second = constraints.advance(first, torch.tensor([w, n, w]))
    assert constraints.allowed(second)[:, 20].tolist() == [True, True, True]
    assert not constraints.allowed(second)[1, g]
    back = second.truncate(torch.tensor([1, 2, 0]))
    assert torch.equal(constraints.allowed(back)[0], allowed[0])
    assert torch.equal(constraints.allowed(back)[1], constraints.allowed(second)[1])
    assert torch.equal(constraints.allowed(back)[2], constraints.allowed(start)[2])
    # Walking on from there forgets what had been read before.
    other = constraints.advance(back, torch.tensor([n, w, n]))
    assert not constraints.allowed(other)[0, 20] and not constraints.allowed(other)[2, g]
    forked = second.fork(2).select(torch.tensor([0, 3]))
    assert torch.equal(constraints.allowed(forked), constraints.allowed(second)[[0, 1]])
    with pytest.raises(ValueError, match="rolled back"):
        first.truncate(torch.tensor([2, 1, 1]))
    ended = constraints.advance(second, torch.tensor([20, 20, n]))
    assert torch.equal(ended.position, torch.tensor([2, 2, 3]))
    # The old state stays usable.
    assert torch.equal(constraints.allowed(first), allowed)


def test_only_the_end_is_left_at_the_longest_length() -> None:
    constraints = made("length:1..2")
    state = constraints.start(1)
    for _ in range(2):
        state = constraints.advance(state, torch.zeros(1, dtype=torch.long))
    assert constraints.allowed(state).tolist() == [[False] * 20 + [True]]

"""The conflict that is told is a smallest one, by brute force over all subsets and all sequences."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence

import pytest

from core.errors import UserError
from core.guidance.constraint_set import ConstraintSet
from tests.laws.test_constraints import Letters, built

TOKENIZER = Letters("ABC")
LENGTHS = (1, 2, 3, 4)
SEQUENCES = ["".join(s) for n in LENGTHS for s in itertools.product("ABC", repeat=n)]
POOL = (
    "length:1..2", "length:2..3", "length:4", "alphabet:AB", "alphabet:BC", "fixed:1A", "fixed:1B", "fixed:-1C",
    "contains:AB", "contains:C-C", "contains:A-x-A", "forbid:AB", "forbid:C", "forbid:B-x", "repeat:1", "repeat:2",
    "composition:A:2..", "composition:A:..0.2", "composition:BC:0.5..0.8", "composition:C:1..1:w=2",
    "within:1:ABC", "within:0:CAB", "within:1:BB",
)  # fmt: skip


def obeyed(items: Sequence[str]) -> bool:
    """Whether any sequence passes the checks of all."""
    rules = [rule.bind(TOKENIZER) for rule in built(items)]
    return any(all(rule.check(sequence) for rule in rules) for sequence in SEQUENCES)


def told(items: Sequence[str]) -> list[str] | None:
    """The constraints that a refusal blames; None where the set is accepted."""
    try:
        ConstraintSet(built(items), TOKENIZER, LENGTHS)
    except UserError as error:
        found = re.fullmatch(r"constraints? (.+): no sequence of length 1 to 4 .+", str(error))
        assert found, f"not a conflict: {error}"
        return found[1].split(" and ")
    return None


def conflicts_are_told_by_a_smallest_subset(trials: int = 120) -> None:
    source, sizes = random.Random(3), []
    for _ in range(trials):
        items = source.sample(POOL, source.randint(1, 5))
        blamed = told(items)
        assert (blamed is None) == obeyed(items), items
        if blamed is not None:
            smallest = next(
                n for n in range(1, 6) if any(not obeyed(some) for some in itertools.combinations(items, n))
            )
            assert set(blamed) <= set(items) and not obeyed(blamed), (items, blamed)
            assert len(blamed) == smallest, (items, blamed)
            sizes.append(smallest)
    # Conflicts of several sizes, among accepted sets.
    assert {2, 3} <= set(sizes) and len(sizes) < trials


def test_conflicts_are_told_by_a_smallest_subset() -> None:
    conflicts_are_told_by_a_smallest_subset()


def _all_blamed(self: ConstraintSet, parts: dict) -> str:
    return self._told(tuple(range(len(self.constraints))), "1 to 4")


def _first_two_blamed(self: ConstraintSet, parts: dict) -> str:
    return self._told(tuple(range(len(self.constraints)))[:2], "1 to 4")


@pytest.mark.parametrize("fault", [_all_blamed, _first_two_blamed])
def test_planted_faults_are_caught(fault: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConstraintSet, "_conflict", fault)
    with pytest.raises(AssertionError):
        conflicts_are_told_by_a_smallest_subset()


def test_planted_blindness_for_one_length_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A conflict at the shortest length alone is taken for one at all."""
    true = ConstraintSet._conflict

    def blinded(self: ConstraintSet, parts: dict) -> str:
        return true(self, {1: parts[1]}).replace("1 to 1", "1 to 4")

    monkeypatch.setattr(ConstraintSet, "_conflict", blinded)
    with pytest.raises(AssertionError):
        conflicts_are_told_by_a_smallest_subset()

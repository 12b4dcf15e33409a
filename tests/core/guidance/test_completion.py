"""Which insertions can still be completed, against all supersequences."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import torch

from core.guidance.constraint_set import ConstraintSet
from core.guidance.constraints import _completion
from core.guidance.constraints._completion import Completion
from tests.laws.test_constraints import Letters, built

TOKENIZER = Letters("ABC")
SETS = {
    "nothing": (),
    "length": ("length:2..3",),
    "forbid": ("forbid:AB", "forbid:CC"),
    "contains": ("contains:A-x(0,1)-C",),
    "contains_at_start": ("contains:<x-B",),
    "fixed": ("fixed:2B,-1C",),
    "composition": ("composition:AB:0.3..0.6",),
    "within": ("within:1:ABCA",),
    "mixture": ("length:3..4", "forbid:AB", "composition:A:1..2", "contains:C"),
}


def made(name: str, longest: int = 4) -> ConstraintSet:
    return ConstraintSet(built(SETS[name]), TOKENIZER, range(longest + 1))


def accepted(rules: ConstraintSet, longest: int = 4) -> list[tuple[int, ...]]:
    every = itertools.chain(*(itertools.product(range(3), repeat=n) for n in range(longest + 1)))
    return [s for s in every if all(rule.check(TOKENIZER.decode(s)) for rule in rules.constraints)]


def subsequence(part: Sequence[int], goal: Sequence[int]) -> bool:
    left = iter(goal)
    return all(token in left for token in part)


def insertions_are_those_that_can_be_completed(name: str) -> None:
    rules = made(name)
    goals = accepted(rules)
    for held in range(5):
        rows = list(itertools.product(range(3), repeat=held))
        # Two columns of padding, whose ids mean nothing.
        tokens = torch.nn.functional.pad(torch.tensor(rows, dtype=torch.long).reshape(len(rows), held), (0, 2), value=7)
        found = rules.insertable(tokens.clamp_max(7), torch.full((len(rows),), held))
        assert found.shape == (len(rows), held + 3, 3) and not bool(found[:, held + 1 :].any())
        for row, allowed in zip(rows, found.tolist(), strict=True):
            for slot, token in itertools.product(range(held + 1), range(3)):
                after = (*row[:slot], token, *row[slot:])
                assert allowed[slot][token] == any(subsequence(after, goal) for goal in goals), (row, slot, token)


@pytest.mark.parametrize("name", SETS)
def test_insertions_are_those_that_can_be_completed(name: str) -> None:
    insertions_are_those_that_can_be_completed(name)


def filled(state: tuple[int, ...], closed: tuple[bool, ...], longest: int = 4) -> set[tuple[int, ...]]:
    """All that insertions into the open gaps lead to."""
    here = {state}
    for slot, token in itertools.product(range(len(state) + 1), range(3)) if len(state) < longest else ():
        if not closed[slot]:
            after = (*state[:slot], token, *state[slot:])
            here |= filled(after, (*closed[:slot], False, False, *closed[slot + 1 :]), longest)
    return here


def closed_gaps_take_nothing_now_or_later(name: str) -> None:
    rules = made(name)
    goals = set(accepted(rules))
    for held in range(1, 4):
        for closed in itertools.product((False, True), repeat=held + 1):
            rows = list(itertools.product(range(3), repeat=held))[:: 1 if held < 3 else 5]
            gaps = torch.tensor([closed]).expand(len(rows), -1)
            found = rules.insertable(torch.tensor(rows), torch.full((len(rows),), held), gaps).tolist()
            for row, (slot, token) in itertools.product(range(len(rows)), itertools.product(range(held + 1), range(3))):
                after = (*rows[row][:slot], token, *rows[row][slot:])
                left = (*closed[:slot], False, False, *closed[slot + 1 :])
                assert found[row][slot][token] == (not closed[slot] and bool(filled(after, left) & goals))


@pytest.mark.parametrize("name", SETS)
def test_closed_gaps_take_nothing_now_or_later(name: str) -> None:
    closed_gaps_take_nothing_now_or_later(name)


@pytest.mark.parametrize("fault", ["now", "later"])
def test_faults_of_closed_gaps_are_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "_allowed" if fault == "now" else "_behind"
    true = getattr(Completion, name)
    monkeypatch.setattr(Completion, name, lambda self, tokens, gaps: true(self, tokens, torch.ones_like(gaps)))
    with pytest.raises(AssertionError):
        closed_gaps_take_nothing_now_or_later("mixture")


def test_rows_of_several_lengths_are_answered_alone() -> None:
    rules = made("mixture")
    tokens = torch.randint(3, (30, 4), generator=torch.Generator().manual_seed(0))
    lengths = torch.arange(30) % 5
    together = rules.insertable(tokens, lengths)
    for n in range(30):
        held = int(lengths[n])
        alone = rules.insertable(tokens[n : n + 1, :held], lengths[n : n + 1])
        assert torch.equal(alone[0], together[n, : held + 1])


def test_taking_turns_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = torch.randint(3, (30, 3), generator=torch.Generator().manual_seed(0))
    lengths = torch.full((30,), 3)
    whole = made("mixture").insertable(tokens, lengths)
    monkeypatch.setattr(_completion, "_CELLS", 1)
    assert torch.equal(made("mixture").insertable(tokens, lengths), whole)


@pytest.mark.parametrize("fault", ["no_look_ahead", "no_look_behind"])
def test_planted_faults_are_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if fault == "no_look_ahead":
        true = Completion._behind
        monkeypatch.setattr(Completion, "_behind", lambda self, *a: [torch.ones_like(p) for p in true(self, *a)])
    else:
        monkeypatch.setattr(torch.Tensor, "scatter_add_", lambda self, *given: self)
    with pytest.raises(AssertionError):
        insertions_are_those_that_can_be_completed("mixture")

"""Laws of the Pareto tree: its archive is what nothing found dominates; budget, constraints, the row's own noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from core.data.noise import Noise
from core.decoding import pareto_tree
from core.decoding._walk import Road
from core.decoding.base import Samples
from core.decoding.pareto_tree import ParetoTree
from core.guidance.pareto import ParetoArchive
from core.processes.mixture_flow import MixtureFlow
from core.tokenizers.base import Vocabulary
from tests.laws.toy_aims import Aims, first, run_of, short, zeros
from tests.laws.toy_kinds import accepts
from tests.laws.toy_runs import NAMES, Favour, Run, rules_for

IDS = torch.arange(2)
SIGMAS = 4.0  # frozen


def tree(aims: Aims, **options: Any) -> ParetoTree:
    return ParetoTree(**{"budget": 8, "children": 3, "steps": 3, "stride": 1, **options}, context=aims)


def aims_of() -> Aims:
    """Two objectives that pull apart, and a third that is coarse."""
    return Aims(zeros, lambda x: float(sum((place + 1) * v for place, v in enumerate(x))), short)


def utilities(aims: Aims, sequences: list[tuple[Any, ...]]) -> np.ndarray:
    return np.array([[told.value(x) for told in aims.told] for x in sequences])


def beaten(table: np.ndarray) -> list[bool]:
    """By the definition: which rows another one is at least as good as everywhere and better than somewhere."""
    return [any((other >= row).all() and (other > row).any() for other in table) for row in table]


def listed(samples: Samples) -> list[list[tuple[tuple[Any, ...], float]]]:
    return [[(tuple(h.tokens.flatten().tolist()), h.score) for h in ranked] for ranked in samples.ranked]


def lists_are_sorted_without_domination(name: str) -> None:
    """Front after front of everything that a tree has scored, each once."""
    for row in range(2):
        aims = aims_of()
        samples = run_of(tree(aims, budget=9), Run(name), torch.tensor([row]))
        (found,) = listed(samples)
        assert sorted(x for x, _ in found) == sorted(set(aims.asked))
        assert tuple(samples.tokens[0].flatten().tolist()) == found[0][0]
        left, front = list(dict.fromkeys(aims.asked)), 0
        while left:
            lost = beaten(utilities(aims, left))
            best = [x for x, worse in zip(left, lost, strict=True) if not worse]
            assert sorted(best) == sorted(x for x, score in found if score == -front)
            left, front = [x for x, worse in zip(left, lost, strict=True) if worse], front + 1


def rows_stand_alone(name: str) -> None:
    for rules in (None, rules_for(name)):
        run = Run(name, rules=rules)
        grown = lambda run, ids, seed=4: listed(run_of(tree(aims_of(), budget=4), run, ids, seed))  # noqa: E731
        together = grown(run, IDS)
        assert grown(run, IDS[1:]) == together[1:]
        assert grown(Run(name, rules=rules, wide=3), IDS.flip(0)) == together[::-1]
        assert grown(run, IDS, 5) != together


def all_that_is_scored_obeys(name: str) -> None:
    rules, aims = rules_for(name), Aims(zeros, short)
    samples = run_of(tree(aims, budget=5), Run(name, rules=rules, hold=True), torch.arange(5))
    assert len(samples.tokens) == 5
    for sequence in aims.asked:
        if name == "drift":
            numbers = torch.tensor(sequence).reshape(-1, 2)
            assert sequence[0] == 0.25 and all(rule.check(numbers) for rule in rules.constraints)
        else:
            assert accepts(rules, sequence) and (2 in sequence if name == "insert" else sequence[0] == 2)


def budgets_are_kept(name: str) -> None:
    """No tree finds more distinct sequences than it may; where there are as many, it finds them all."""
    for budget in (1, 7):
        aims = Aims(zeros, short)
        samples = run_of(tree(aims, budget=budget), Run(name), IDS)
        assert all(0 < len(ranked) <= budget for ranked in samples.ranked)
        assert len(aims.asked) == len(set(aims.asked)) <= budget * len(IDS)
        if name == "drift":
            assert all(len(ranked) == budget for ranked in samples.ranked)


def small(rows: int, aims: Aims, length: int = 2, **options: Any) -> Samples:
    """Trees over the sequences of a few tokens of three, each as likely."""
    process, noise = MixtureFlow(Vocabulary(3), limit=8).double(), Noise.start(2, torch.arange(rows))
    even = lambda batch, time: torch.zeros(*batch.tokens.shape, 3).double()  # noqa: E731
    start = process.prior(torch.full((rows,), length), noise)
    return tree(aims, **options).sample(process, even, start, noise)


def wide_trees_find_the_front() -> None:
    """With the means to find every sequence, the archive is the front of all."""
    aims = Aims(zeros, lambda x: float(x[0] * x[1]), first)
    every = list(itertools.product(range(3), repeat=2))
    lost = beaten(utilities(aims, every))
    front = {x for x, worse in zip(every, lost, strict=True) if not worse}
    (found,) = listed(small(1, aims, budget=100, children=16, stride=2))
    assert len(found) == len(every) and {x for x, score in found if score == 0} == front


def trees_seek() -> None:
    """Of 3^8 sequences a tree's are better in the mean than an even third of zeros."""
    aims = Aims(zeros)
    samples = small(8, aims, length=8, budget=32, children=4, stride=1, steps=4)
    gained = np.array([np.mean([zeros(x) for x, _ in found]) for found in listed(samples)]) - 8 / 3
    assert gained.mean() > SIGMAS * gained.std(ddof=1) / len(gained) ** 0.5


@pytest.mark.parametrize("name", NAMES)
def test_lists_are_sorted_without_domination(name: str) -> None:
    lists_are_sorted_without_domination(name)


@pytest.mark.parametrize("name", NAMES)
def test_rows_stand_alone(name: str) -> None:
    rows_stand_alone(name)


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_scored_obeys(name: str) -> None:
    all_that_is_scored_obeys(name)


@pytest.mark.parametrize("name", NAMES)
def test_budgets_are_kept(name: str) -> None:
    budgets_are_kept(name)


def test_wide_trees_find_the_front() -> None:
    wide_trees_find_the_front()


def test_trees_seek() -> None:
    trees_seek()


def test_a_front_lists_the_most_isolated_first() -> None:
    samples = small(1, Aims(zeros, lambda x: -zeros(x)), length=4)
    # All are one front; the ends of a column come first.
    found = listed(samples)[0]
    assert {score for _, score in found} == {0.0}
    ends = {zeros(x) for x, _ in found}
    assert {zeros(x) for x, _ in found[:2]} == {min(ends), max(ends)}


def test_sequences_without_a_value_are_not_listed() -> None:
    some = Aims(lambda x: math.nan if x[0] == 0 else 1.0, short)
    samples = small(1, some, budget=30)
    assert any(x[0] == 0 for x in some.asked) and all(x[0] != 0 for found in listed(samples) for x, _ in found)
    none = Aims(lambda x: math.nan)
    samples = small(1, none)
    assert samples.ranked == ((),) and tuple(samples.tokens[0].tolist()) == none.asked[0]


@pytest.mark.parametrize("name", ["mask", "append", "edit"])
def test_guides_lead_the_branches(name: str) -> None:
    def share(guides: list[Any]) -> float:
        aims = Aims(short)
        run_of(tree(aims, guides=guides, children=1, budget=1), Run(name), torch.arange(30))
        return float(np.mean([zeros(x) / max(1, len(x)) for x in aims.asked]))

    assert share([Favour(2.0)]) > share([]) + 0.1


def test_settings_that_make_no_sense_are_refused() -> None:
    bad: list[dict[str, Any]] = [{"budget": 0}, {"children": 0}, {"stride": 0}, {"trees": 0}, {"exploration": math.nan}]
    for options in bad:
        with pytest.raises(ValueError, match="at least"):
            ParetoTree(**options)
    with pytest.raises(ValueError, match="steering needs a context with objectives"):
        run_of(ParetoTree(), Run("mask"), IDS)


# --- planted faults ---------------------------------------------------------------------


def _better_than_all(patch: pytest.MonkeyPatch) -> None:
    """What the released search does: in only if at least as good as every member in every objective."""

    def add(self: ParetoArchive, table: Any, items: Any) -> int:
        entered = 0
        for row, item in zip(np.asarray(table), items, strict=True):
            if item not in self.items and (row >= self.utilities).all():
                self.utilities, entered = np.concatenate([self.utilities, row[None]]), entered + 1
                self.items.append(item)
        return entered

    patch.setattr(ParetoArchive, "add", add)


def _nothing_leaves(patch: pytest.MonkeyPatch) -> None:
    def add(self: ParetoArchive, table: Any, items: Any) -> int:
        self.items += [item for item in dict.fromkeys(items) if item not in self.items]
        return 0

    patch.setattr(ParetoArchive, "add", add)


def _no_reward(patch: pytest.MonkeyPatch) -> None:
    true = pareto_tree._Node.credit
    patch.setattr(pareto_tree._Node, "credit", lambda self, reward: true(self, 0 * reward))


def _reward_of_the_worse(patch: pytest.MonkeyPatch) -> None:
    true = pareto_tree._Node.credit
    patch.setattr(pareto_tree._Node, "credit", lambda self, reward: true(self, 1 - reward))


def _unruled(patch: pytest.MonkeyPatch) -> None:
    true = Road.__init__
    patch.setattr(Road, "__init__", lambda self, a, b, c, rules: true(self, a, b, c, None))


def _one_slot(patch: pytest.MonkeyPatch) -> None:
    """Every branch draws the same."""
    true = pareto_tree.replace
    patch.setattr(pareto_tree, "replace", lambda noise, slots: true(noise, slots=0 * slots))


def _one_tree_sees_the_other(patch: pytest.MonkeyPatch) -> None:
    """What one tree has found counts for the next."""
    true, shared = pareto_tree._Tree.__init__, {}

    def init(self: Any, *arguments: Any) -> None:
        true(self, *arguments)
        self.tokens = shared

    patch.setattr(pareto_tree._Tree, "__init__", init)


def _overspent(patch: pytest.MonkeyPatch) -> None:
    true = pareto_tree._Tree._expand
    patch.setattr(pareto_tree._Tree, "_expand", lambda self, node, count: true(self, node, count + 3))


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = {
    "better_than_all": (_better_than_all, lambda: lists_are_sorted_without_domination("mask")),
    "better_than_all_of_all": (_better_than_all, wide_trees_find_the_front),
    "nothing_leaves": (_nothing_leaves, lambda: lists_are_sorted_without_domination("mask")),
    "no_reward": (_no_reward, trees_seek),
    "reward_of_the_worse": (_reward_of_the_worse, trees_seek),
    "one_slot": (_one_slot, wide_trees_find_the_front),
    "overspent": (_overspent, lambda: budgets_are_kept("drift")),
    "one_tree_sees_the_other": (_one_tree_sees_the_other, lambda: rows_stand_alone("mask")),
    **{f"unruled_{name}": (_unruled, lambda n=name: all_that_is_scored_obeys(n)) for name in NAMES},
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law = FAULTS[name]
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()

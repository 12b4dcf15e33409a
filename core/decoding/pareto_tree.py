"""A tree of unfinished sequences, searched for what no other sequence beats."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.data.noise import Noise, Purpose
from core.data.sequence_batch import SequenceBatch
from core.decoding._guiding import Context, Guiding
from core.decoding._walk import Road, Walk
from core.decoding._worth import refuse_certain_steps
from core.decoding.base import Hypothesis, Sampler, Samples
from core.evaluation.hypervolume import nondominated
from core.guidance.constraint_set import ConstraintSet
from core.guidance.guides.base import Guide, GuideContext
from core.guidance.pareto import ParetoArchive, crowding, fronts
from core.processes.base import Network, Process
from core.registry import Paper

# Every branch of a tree has a slot of the noise to itself.
_SLOTS = 1 << 16
# Branches that a tree draws for each sequence of its budget, at most: fewer distinct ones may be within reach.
_PATIENCE = 4


class ParetoTree(Sampler):
    """Monte-Carlo tree search whose rewards are vectors, one tree for each row.

    A node is an unfinished sequence at a step of the process, the root is the row's start. One turn:
    from the root, go to one of the children that no other child dominates, each with the same chance, in

        mean reward + exploration sqrt(visits of the node) / (1 + visits of the child),

    until a node without children; draw `children` branches from it, each `stride` steps of the process, and
    each of them on to a finished sequence; score these, and add each one's reward to its branch and to all
    nodes above. Steps follow the run's constraints and guides. Branches that are equal are one; finished
    ones are not entered again, and a tree of which nothing is left grows anew from its root.

    The reward is, objective by objective, the share of the distinct sequences found so far that are not
    better, 0 for a sequence without a value: what has no unit needs no scale. (A share of the archive alone
    would be 0 or 1 where a single objective is sought.)

    A tree ends when `budget` distinct sequences are found, or four times as many branches are drawn.
    `Samples.ranked` lists what it found: first its archive, of everything that nothing found dominates, then
    the fronts behind it; within a front the most isolated first. The score is less the number of the front.
    trees: how many a run grows from starts of their own. Where no sequence has a value the list is empty,
    and the row's sequence is the first that was found.
    """

    paper = Paper(
        "ours",
        "PepTune: De Novo Generation of Therapeutic Peptides with Multi-Objective-Guided Discrete Diffusion",
        "2412.17780",
        "the archive holds what is not dominated, instead of what is at least as good as every member in every "
        "objective; rewards are shares of all sequences found; a process of any kind",
    )
    searches = True
    steered = True
    widened_by = "budget"

    def __init__(
        self,
        budget: int = 256,
        children: int = 8,
        steps: int = 32,
        stride: int = 4,
        exploration: float = 0.1,
        trees: int = 4,
        guides: Sequence[Guide] = (),
        context: Context | None = None,
    ) -> None:
        counts = {"budget": budget, "children": children, "steps": steps, "stride": stride, "trees": trees}
        for name, value in counts.items():
            if value < 1:
                raise ValueError(f"{name} {value}: at least 1")
        if not 0 <= exploration < math.inf:
            raise ValueError(f"exploration {exploration}: a finite number, at least 0")
        self.budget, self.children, self.steps, self.stride = budget, children, steps, stride
        self.exploration, self.starts, self.guiding = exploration, trees, Guiding(guides, context)

    def suits(self, process: Process) -> None:
        refuse_certain_steps("pareto_tree", process)

    def sample(
        self,
        process: Process,
        network: Network,
        start: SequenceBatch,
        noise: Noise,
        constraints: ConstraintSet | None = None,
    ) -> Samples:
        self.suits(process)
        road = Road(process, network, self.steps, constraints)
        context = self.guiding.asked(lambda _: road.transition(start, *road.grid[0]), noise)
        tokens, ranked = [], []
        for row in torch.arange(start.layout.count, device=start.tokens.device)[:, None]:
            tree = _Tree(self, road, context, start.select(row), noise.select(row))
            tree.grow()
            ranked.append(tree.ranked())
            tokens.append(ranked[-1][0].tokens if ranked[-1] else tree.first)
        return Samples(tuple(tokens), road.asked.calls, road.asked.rows, ranked=tuple(ranked))


@dataclass(eq=False)
class _Node:
    """Row `row` of `batch` stands before step `index` of the grid; no batch once it is finished."""

    batch: SequenceBatch | None
    row: int
    index: int
    above: _Node | None
    reward: Float[np.ndarray, " M"]
    visits: int = 0
    below: dict[Hashable, _Node] = field(default_factory=dict)
    spent: bool = False

    def key(self, sequence: Hashable) -> Hashable:
        """What makes branches of one node the same: where they stand, or what they have finished as."""
        if self.batch is None:
            return "finished", sequence
        return int(self.batch.layout.lengths[self.row]), self.batch.tokens[self.row].cpu().numpy().tobytes()

    def credit(self, reward: Float[np.ndarray, " M"]) -> None:
        """One more sequence was reached through this node."""
        node: _Node | None = self
        while node is not None:
            node.reward, node.visits, node = node.reward + reward, node.visits + 1, node.above

    def close(self) -> None:
        """This node and those above it are spent as far as all below them are."""
        node: _Node | None = self
        while node is not None:
            node.spent, node = all(child.spent for child in node.below.values()), node.above


class _Tree:
    """The search from one start."""

    def __init__(
        self, sampler: ParetoTree, road: Road, context: GuideContext, start: SequenceBatch, noise: Noise
    ) -> None:
        self.sampler, self.road, self.context, self.noise = sampler, road, context, noise
        width = len(context.scoreboard.targets)
        self.root = _Node(start, 0, 0, None, np.zeros(width))
        self.archive = ParetoArchive(width)
        # Every distinct sequence by what it decodes to: its tokens, and its utilities where it has all.
        self.tokens: dict[Any, Tensor] = {}
        self.found: dict[Any, Float[np.ndarray, " M"]] = {}
        self.branches = 0

    @property
    def first(self) -> Tensor:
        """The sequence that was found first."""
        return next(iter(self.tokens.values()))

    def grow(self) -> None:
        """Turn after turn, until the budget is spent."""
        budget, most = self.sampler.budget, min(_PATIENCE * self.sampler.budget, _SLOTS)
        for turn in itertools.count():
            left = min(budget - len(self.tokens), most - self.branches)
            if left < 1:
                break
            self._expand(self._leaf(turn), min(self.sampler.children, left))

    def _leaf(self, turn: int) -> _Node:
        node, level = self.root, 0
        chance = self.noise.at(turn).uniform(len(self.road.grid), Purpose.SELECT)[0].tolist()
        while node.below and not node.spent:
            open_ = [child for child in node.below.values() if not child.spent]
            wanted = self.sampler.exploration * math.sqrt(node.visits)
            scores = np.stack([child.reward / child.visits + wanted / (1 + child.visits) for child in open_])
            best = np.flatnonzero(nondominated(scores))
            node, level = open_[int(best[int(chance[level] * len(best))])], level + 1
        return node

    def _expand(self, node: _Node, count: int) -> None:
        """Draw branches from a node, finish each, and give the rewards back."""
        assert node.batch is not None
        slots = self.noise.slots + self.branches + torch.arange(count, device=self.noise.slots.device)
        self.branches += count
        noise = replace(self.noise.select(torch.zeros_like(slots)), slots=slots)
        walk = Walk(self.road, node.batch.select(torch.full_like(slots, node.row)), noise, self.sampler.guiding)
        after = min(node.index + self.sampler.stride, len(self.road.grid))
        walk.run(node.index, after)
        held, rows = walk.batch, {place: row for row, place in enumerate(walk.rows.tolist())}
        walk.run(after, len(self.road.grid))
        sequences = self.context.decode(walk.outcome(torch.arange(count, device=slots.device)))
        utilities = self._enter(sequences, [walk.finished[place] for place in range(count)])
        table = np.array([*self.found.values()]).reshape(len(self.found), self.archive.objectives)
        none = np.zeros(self.archive.objectives)
        for place, sequence in enumerate(sequences):
            standing = place in rows
            batch, row = (held, rows[place]) if standing else (None, 0)
            child = _Node(batch, row, after, node, none, spent=not standing)
            child = node.below.setdefault(child.key(sequence), child)
            child.credit((table <= utilities[place]).mean(0) if sequence in self.found else none)
        node.close()

    def _enter(self, sequences: Sequence[Any], tokens: Sequence[Tensor]) -> Float[np.ndarray, "R M"]:
        """Ask the objectives, and keep what is new; returns the utilities."""
        board = self.context.scoreboard
        utilities = board.utility(board.score(sequences))
        for sequence, row, utility in zip(sequences, tokens, utilities, strict=True):
            if sequence not in self.tokens:
                self.tokens[sequence] = row
                if np.isfinite(utility).all():
                    self.found[sequence] = utility
        valued = [place for place, sequence in enumerate(sequences) if sequence in self.found]
        self.archive.add(utilities[valued], [sequences[place] for place in valued])
        return utilities

    def ranked(self) -> tuple[Hypothesis, ...]:
        """What was found and has a value, best first."""
        if not self.found:
            return ()
        kept = set(self.archive.items)
        rest = [sequence for sequence in self.found if sequence not in kept]
        table = np.array([self.found[sequence] for sequence in rest]).reshape(len(rest), self.archive.objectives)
        levels = [self.archive.items, *([rest[i] for i in front] for front in fronts(table))]
        found = []
        for number, level in enumerate(levels):
            apart = crowding(np.stack([self.found[sequence] for sequence in level]))
            order = np.argsort(-apart, kind="stable")
            found += [Hypothesis(self.tokens[level[i]], math.nan, float(-number)) for i in order]
        return tuple(found)

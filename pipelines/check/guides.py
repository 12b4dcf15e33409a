"""Laws of a guide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chi2, kstest
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.stepwise import Stepwise
from core.errors import as_user_error
from core.guidance.guides.base import Guide, GuideContext, Model
from core.guidance.objectives.base import Objective, Scoreboard, Target
from core.processes.transitions import registry as transitions
from core.registry import Paper
from pipelines.check._law import LEAST_P, alike, require
from pipelines.check._toys import Toy, one_of_each_kind, toys

_IDS = torch.arange(12)
_STEPS = 4
_DRAWS = 2000
# Below all that a guide does on purpose, above the rounding of fp64.
_FAINT, _MOVED = 1e-9, 1e-6


def laws(member: type[Guide]) -> Iterator[str]:
    known = frozenset(transitions.members().values())
    yield require(bool(member.supports) and member.supports <= known, "it supports kinds of transition that there are")
    tried = [toy for toy in one_of_each_kind(toys()) if toy.kind in member.supports]
    yield require(bool(tried), "a registered process takes steps of a kind that it supports")
    moved = []
    for toy in tried:
        moved.append((yield from _guided(member, toy)))
    # Not of every kind: numbers that have no noise have one way to go.
    yield require(any(moved), "a strength of 2 changes what is drawn")


def _guided(member: type[Guide], toy: Toy) -> Generator[str, None, bool]:
    """The laws on one process; returns whether the guide does anything there."""

    def sampler(strength: float) -> Stepwise:
        with as_user_error(member.__name__):
            guide = member()
        guide.strength = strength
        return Stepwise(_STEPS, [guide], _context_of(toy))

    plain, faint = toy.drawn(Stepwise(_STEPS), _IDS).tokens, (0.0, _FAINT)
    same = all(alike(toy.drawn(sampler(strength), _IDS).tokens, plain, _MOVED) for strength in faint)
    if not same:
        # A guide that draws for itself gives other sequences of the same law.
        many = torch.arange(_DRAWS)
        free = toy.drawn(Stepwise(_STEPS), many, seed=6).tokens
        same = all(_same_law(toy.drawn(sampler(strength), many).tokens, free) for strength in faint)
    yield require(same, f"{toy.key}: strength 0 is the unguided law, and so is one that goes to 0")
    together = toy.drawn(sampler(2.0), _IDS).tokens
    few = torch.tensor([7, 3])
    alone = toy.drawn(sampler(2.0), _IDS[few]).tokens
    same = alike(alone, [together[row] for row in few.tolist()])
    yield require(same, f"{toy.key}: guided the same alone and in a batch")
    yield require(toy.kept(toy.drawn(sampler(2.0), _IDS, held=True)), f"{toy.key}: fixed sites never move")
    if toy.rules is not None:
        yield require(toy.obeyed(toy.drawn(sampler(2.0), _IDS, ruled=True)), f"{toy.key}: constraints hold")
    return not alike(together, plain)


def _same_law(rows: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether two samples of many rows may have one law: of lengths and first tokens, or of first numbers."""
    if rows[0].is_floating_point():
        one, other = ([float(row.flatten()[0]) for row in each] for each in (rows, others))
        return float(kstest(one, other).pvalue) > LEAST_P
    counts = [Counter((len(row), *row[:1].tolist()) for row in each) for each in (rows, others)]
    table = np.array([[count[outcome] for outcome in sorted(counts[0] | counts[1])] for count in counts])
    # Few draws of an outcome say little: rare ones count together.
    rare = table.sum(0) < 20
    one, other = np.column_stack([table[:, ~rare], table[:, rare].sum(1)]).astype(float)
    # The chi-square of two samples of as many rows; an outcome that neither has says nothing.
    gaps = (one - other) ** 2 / np.maximum(one + other, 1)
    return float(chi2.sf(gaps.sum(), max(1, len(gaps) - 1))) > LEAST_P


def _context_of(toy: Toy) -> Any:
    """What guides may use: two objectives among it, on the sequences of a toy."""
    board = Scoreboard([Target("first", _Place(0), "max"), Target("last", _Place(-1), "min")])

    def decode(batch: SequenceBatch) -> list[Any]:
        rows = [row[:length] for row, length in zip(batch.tokens, batch.layout.lengths.tolist(), strict=True)]
        numbers = toy.model.process.writes == "numbers"
        return [tuple(row.flatten().tolist()) if numbers else toy.tokenizer.decode(row.tolist()) for row in rows]

    def context(model: Model, noise: Noise) -> GuideContext:
        return GuideContext(model, decode, noise, board)

    return context


class _Place(Objective):
    """The number at a place, that of a letter being its code."""

    paper = Paper("ours", "One place of a sequence")
    direction, unit, source = "max", "1", "counting"

    def __init__(self, place: int) -> None:
        self.place = place

    def score(self, sequences: Sequence[Any]) -> NDArray[np.float64]:
        found = [sequence[self.place] if len(sequence) else np.nan for sequence in sequences]
        return np.array([ord(value) if isinstance(value, str) else value for value in found], dtype=float)

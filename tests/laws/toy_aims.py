"""What toys of every kind are steered by: objectives over all that they write, and who asked for what."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.base import Sampler, Samples
from core.guidance.guides.base import GuideContext, Model
from core.guidance.objectives.base import Objective, Scoreboard, Target
from core.registry import Paper
from tests.laws.toy_runs import Run

Sites = tuple[Any, ...]


class Told(Objective):
    """A value for each sequence by a function, with a record of every sequence that was asked for."""

    paper = Paper("ours", "toy")
    direction, unit, source = "max", "1", "given"

    def __init__(self, value: Callable[[Sites], float]) -> None:
        self.value, self.asked = value, []

    def score(self, sequences: Sequence[Sites]) -> NDArray[np.float64]:
        self.asked += list(sequences)
        return np.array([self.value(sequence) for sequence in sequences], dtype=float)


class Aims:
    """A context with one objective for each function, of sequences as tuples of their sites."""

    def __init__(self, *values: Callable[[Sites], float], weights: Sequence[float] = ()) -> None:
        self.told = [Told(value) for value in values]
        given = weights or [1.0] * len(values)
        targets = [Target(f"o{m}", told, "max", weight=given[m]) for m, told in enumerate(self.told)]
        self.board = Scoreboard(targets)

    def __call__(self, model: Model, noise: Noise) -> GuideContext:
        return GuideContext(model, sites_of, noise, self.board)

    @property
    def asked(self) -> list[Sites]:
        """Every sequence that the first objective was asked for, in order."""
        return self.told[0].asked


def sites_of(batch: SequenceBatch) -> list[Sites]:
    """The sites of each sequence, numbers with their channels flat."""
    lengths = (batch.layout.lengths * batch.fields).tolist()
    return [tuple(row[:length]) for row, length in zip(batch.tokens.flatten(1).tolist(), lengths, strict=True)]


def zeros(sequence: Sites) -> float:
    """How many sites hold token 0, or how many numbers are above 1.5."""
    return float(sum(x > 1.5 if isinstance(x, float) else x == 0 for x in sequence))


def short(sequence: Sites) -> float:
    """More for fewer sites."""
    return -float(len(sequence))


def first(sequence: Sites) -> float:
    """The value of the first site, 0 where there is none."""
    return float(sequence[0]) if sequence else 0.0


def run_of(sampler: Sampler, run: Run, ids: torch.Tensor, seed: int = 4) -> Samples:
    """What a sampler draws for some ids of a toy of any kind."""
    noise = Noise.start(seed, ids)
    return sampler.sample(*run.parts(), run.start(noise), noise, run.rules)

"""Objectives of the toys' letters, that conflict, and what guides may use of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.guidance.guides.base import GuideContext, Model
from core.guidance.known import Known
from core.guidance.objectives.base import Objective, Scoreboard, Target
from core.registry import Paper


class Share(Objective):
    """How many places hold a letter, each by a weight of its own, over their number; so it has a gradient."""

    paper = Paper("ours", "toy")
    direction, unit, source = "max", "1", "counting"

    def __init__(self, letter: str, letters: str = "ABC", tilt: float = 0.0) -> None:
        self.letter, self.letters, self.tilt = letter, letters, tilt

    def weights(self, length: int) -> NDArray[np.float64]:
        return (1 + self.tilt * np.arange(length)) / max(length, 1)

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        hits = ([letter == self.letter for letter in text] for text in sequences)
        return np.array([float(np.dot(self.weights(len(hit)), hit)) for hit in hits])

    def gradient(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        found = np.zeros((len(sequences), max(map(len, sequences)), len(self.letters)))
        for row, text in enumerate(sequences):
            found[row, : len(text), self.letters.index(self.letter)] = self.weights(len(text))
        return found


class Table(Objective):
    """A value for each sequence, looked up; NaN for those not in it."""

    paper = Paper("ours", "toy")
    direction, unit, source = "max", "1", "a table"

    def __init__(self, values: dict[str, float]) -> None:
        self.values = values

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        return np.array([self.values.get(text, np.nan) for text in sequences])


def board(*objectives: Objective, weights: Sequence[float] | None = None) -> Scoreboard:
    """Each is maximised."""
    given = weights or [1.0] * len(objectives)
    return Scoreboard(
        [Target(f"o{n}", o, "max", weight=w) for n, (o, w) in enumerate(zip(objectives, given, strict=True))]
    )


def two_letters() -> Scoreboard:
    """As many A as possible, and as many B, the later the better."""
    return board(Share("A"), Share("B", tilt=0.3))


# What is known beforehand of shares: where they lie, and a front that leaves room.
KNOWN = replace(Known.of([[0.3, 0.1], [0.1, 0.3]]), low=np.zeros(2), high=np.ones(2))


def deciphered(batch: SequenceBatch, letters: str = "ABC") -> list[str]:
    """The text of each row, field by field."""
    rows, fields = batch.tokens.flatten(1).tolist(), batch.fields
    return [
        "".join(letters[token] for token in row[: length * fields])
        for row, length in zip(rows, batch.layout.lengths.tolist(), strict=True)
    ]


def context_on(
    scores: Scoreboard, known: Known | None = KNOWN, letters: str = "ABC"
) -> Callable[[Model, Noise], GuideContext]:
    """What a run with these objectives gives its guides."""

    def context(model: Model, noise: Noise) -> GuideContext:
        decode = lambda batch: deciphered(batch, letters)  # noqa: E731
        return GuideContext(model, decode, noise, scores, tuple(letters), known)

    return context

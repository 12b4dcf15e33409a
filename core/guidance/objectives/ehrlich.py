"""Ehrlich functions, of sequences of abstract states."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.evaluation.ehrlich_function import SYMBOLS, EhrlichFunction
from core.guidance.objectives._arguments import number, whole
from core.guidance.objectives.base import Objective
from core.registry import Paper

_LONGEST = 4096
_SEEDS = (1 << 32) - 1


class Ehrlich(Objective):
    """`ehrlich:STATES:LENGTH:MOTIFS:MOTIF_LENGTH:QUANTIZATION:SEED:EPISTASIS:MOTIF`, each with a default.

    MOTIF is `all` for the function itself, else the number of one motif, from 1: how well that motif
    alone is met, so that the product over all motifs is the function. Values lie in [0, 1] and 1 is
    reached, by all motifs at once. NaN for sequences of another length, with other symbols, or with a
    transition that the function bans. Neither direction is hazardous: the states stand for nothing.
    """

    paper = Paper(
        "ours",
        "Closed-Form Test Functions for Biophysical Sequence Design Benchmarking",
        "2407.00236",
        "an infeasible sequence has no value in place of minus infinity; quantization must divide the motif's length",
    )
    direction = "max"
    unit = "share of the maximum"
    source = "computed here"
    kind = "state"

    def __init__(
        self,
        states: str = "32",
        length: str = "32",
        motifs: str = "4",
        motif_length: str = "4",
        quantization: str = "4",
        seed: str = "0",
        epistasis: str = "0",
        motif: str = "all",
    ) -> None:
        self.length = whole("ehrlich length", length, 1, _LONGEST)
        count = whole("ehrlich motifs", motifs, 1, self.length)
        self._motif = None if motif == "all" else whole("ehrlich motif", motif, 1, count) - 1
        self._codes = {symbol: state for state, symbol in enumerate(SYMBOLS[: whole("ehrlich states", states, 3, 32)])}
        self._function = EhrlichFunction(
            len(self._codes),
            self.length,
            count,
            whole("ehrlich motif_length", motif_length, 1, self.length),
            whole("ehrlich quantization", quantization, 1, self.length),
            whole("ehrlich seed", seed, 0, _SEEDS),
            number("ehrlich epistasis", epistasis, 0.0, 4.0),
        )

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        values = np.full(len(sequences), np.nan)
        known = [
            row
            for row, sequence in enumerate(sequences)
            if len(sequence) == self.length and self._codes.keys() >= set(sequence)
        ]
        if known:
            states = np.array([[self._codes[symbol] for symbol in sequences[row]] for row in known])
            parts = self._function.parts(states)
            values[known] = parts.prod(axis=1) if self._motif is None else parts[:, self._motif]
        return values

"""Hydrophobic moment."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.guidance.objectives._arguments import number
from core.guidance.objectives.base import Objective
from core.registry import Paper
from domains.bio.objectives._sequence import each

# Normalised consensus scale of Eisenberg, Schwarz, Komaromy and Wall 1984.
_SCALE = {
    "A": 0.62, "R": -2.53, "N": -0.78, "D": -0.90, "C": 0.29, "Q": -0.85, "E": -0.74, "G": 0.48, "H": -0.40, "I": 1.38,
    "L": 1.06, "K": -1.50, "M": 0.64, "F": 1.19, "P": 0.12, "S": -0.18, "T": -0.05, "W": 0.81, "Y": 0.26, "V": 1.08,
}  # fmt: skip


class HydrophobicMoment(Objective):
    """|sum_n H_n exp(i n delta)| / N: `hydrophobic_moment:ANGLE:WINDOW`.

    ANGLE is delta in degrees, 100 for an alpha helix and 160 to 180 for a beta strand. With a
    WINDOW the largest moment over windows of that many residues is taken; shorter sequences
    and `all` take the whole.
    """

    paper = Paper("ours", "Eisenberg, Weiss and Terwilliger 1984, The hydrophobic moment detects periodicity")
    direction = "max"
    unit = "Eisenberg mean"
    source = "computed here, Eisenberg normalised consensus scale"
    kind = "protein"

    def __init__(self, angle: str = "100", window: str = "all") -> None:
        self.angle = math.radians(number("hydrophobic_moment angle", angle, 0.0, 360.0))
        if window != "all" and not (window.isdecimal() and int(window) >= 1):
            raise UserError(f"hydrophobic_moment window: {window!r} is neither a number of residues nor all")
        self.window = None if window == "all" else int(window)

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        return each(self._moment, sequences)

    def _moment(self, sequence: str) -> float:
        turn = np.exp(1j * self.angle * np.arange(len(sequence)))
        terms = np.array([_SCALE[letter] for letter in sequence]) * turn
        width = min(self.window or len(sequence), len(sequence))
        # the phase common to a window does not change its modulus, so one cumulative sum serves all
        total = np.concatenate(([0], terms.cumsum()))
        return float(np.abs(total[width:] - total[:-width]).max() / width)

"""Binding of human transcription factors to every DNA sequence of 8 bases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from core.errors import UserError
from core.guidance.objectives.base import Objective
from core.registry import Paper, did_you_mean
from domains.bio.alphabet import DNA
from domains.bio.objectives._lookup import measured

FACTORS = ("SIX6", "CRX", "HOXD13", "EGR2", "POU3F4", "PAX4", "GFI1", "NKX2-5")


class Tfbind8(Objective):
    """`tfbind8:FACTOR`: how strongly a factor binds, of SIX6 CRX HOXD13 EGR2 POU3F4 PAX4 GFI1 NKX2-5.

    The measured enrichment score of the protein with the reference sequence (replicate R1), scaled so
    that the weakest of all 32,896 molecules has 0 and the strongest 1. A sequence and its reverse
    complement are one molecule. NaN for all but 8 bases. Neither direction is hazardous.
    """

    paper = Paper(
        "ours",
        "Barrera et al. 2016, Survey of variation in human transcription factors reveals prevalent DNA binding changes",
        deviations="scores are scaled by their smallest and largest value",
    )
    direction = "max"
    unit = "share of the range of enrichment scores"
    source = "measured on protein binding microarrays"
    kind = "dna"
    data: ClassVar[str] = "tfbind8"

    def __init__(self, factor: str = "SIX6") -> None:
        if factor not in FACTORS:
            raise UserError(f"tfbind8 factor: unknown {factor!r}{did_you_mean(factor, FACTORS)}")
        self._scores = measured(self.data, f"{factor}_REF_R1")
        self._low, self._high = min(self._scores.values()), max(self._scores.values())

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        raw = np.array([self._scores.get(DNA.canonical(sequence), math.nan) for sequence in sequences])
        return (raw - self._low) / (self._high - self._low)

"""Net charge at a pH."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.guidance.objectives._arguments import number
from core.guidance.objectives.base import Objective
from core.registry import Paper
from domains.bio.objectives._sequence import each


class NetCharge(Objective):
    """Henderson-Hasselbalch sum over side chains and free termini: `net_charge:PH`."""

    paper = Paper("ours", "Bjellqvist et al. 1993, The focusing positions of polypeptides in immobilized pH gradients")
    direction = "max"
    unit = "e"
    source = "Biopython ProteinAnalysis.charge_at_pH"
    kind = "protein"

    def __init__(self, ph: str = "7.0") -> None:
        self.ph = number("net_charge pH", ph, 0.0, 14.0)

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        from Bio.SeqUtils.ProtParam import ProteinAnalysis

        return each(lambda sequence: ProteinAnalysis(sequence).charge_at_pH(self.ph), sequences)

"""The pH at which the net charge is zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.guidance.objectives.base import Objective
from core.registry import Paper
from domains.bio.objectives._sequence import each


class IsoelectricPoint(Objective):
    """Bisection on the charge of free termini and side chains, within the library's 4.05 to 12."""

    paper = Paper("ours", "Bjellqvist et al. 1993, The focusing positions of polypeptides in immobilized pH gradients")
    direction = "max"
    unit = "pH"
    source = "Biopython ProteinAnalysis.isoelectric_point"
    kind = "protein"

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        from Bio.SeqUtils.ProtParam import ProteinAnalysis

        return each(lambda sequence: ProteinAnalysis(sequence).isoelectric_point(), sequences)

"""Grand average of hydropathy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.guidance.objectives.base import Objective
from core.registry import Paper
from domains.bio.objectives._sequence import each


class Gravy(Objective):
    """Mean Kyte-Doolittle hydropathy; more is more hydrophobic."""

    paper = Paper("ours", "Kyte and Doolittle 1982, A simple method for displaying the hydropathic character")
    direction = "max"
    unit = "Kyte-Doolittle mean"
    source = "Biopython ProteinAnalysis.gravy"
    kind = "protein"

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        from Bio.SeqUtils.ProtParam import ProteinAnalysis

        return each(lambda sequence: ProteinAnalysis(sequence).gravy(), sequences)

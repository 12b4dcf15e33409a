"""Instability index."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.guidance.objectives.base import Objective
from core.registry import Paper
from domains.bio.objectives._sequence import each


class InstabilityIndex(Objective):
    """Mean dipeptide weight times 10; below 40 counts as stable. Needs two residues.

    A rule fitted to proteins in the test tube: a proxy, not a measured half-life.
    """

    paper = Paper(
        "ours",
        "Guruprasad, Reddy and Pandit 1990, Correlation between stability of a protein and its dipeptide composition",
    )
    direction = "min"
    unit = "index"
    source = "Biopython ProteinAnalysis.instability_index"
    kind = "protein"

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        from Bio.SeqUtils.ProtParam import ProteinAnalysis

        return each(lambda sequence: ProteinAnalysis(sequence).instability_index(), sequences, shortest=2)

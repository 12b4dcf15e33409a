"""Molecular weight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.guidance.objectives.base import Objective
from core.registry import Paper
from domains.bio.objectives._sequence import each


class MolecularWeight(Objective):
    """Average isotopic mass of the linear peptide with free termini."""

    paper = Paper("ours", "IUPAC average residue masses")
    direction = "min"
    unit = "Da"
    source = "Biopython ProteinAnalysis.molecular_weight"
    kind = "protein"

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        from Bio.SeqUtils.ProtParam import ProteinAnalysis

        return each(lambda sequence: ProteinAnalysis(sequence).molecular_weight(), sequences)

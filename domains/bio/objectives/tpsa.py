"""Topological polar surface area."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.guidance.objectives.base import Objective
from core.registry import Paper
from domains.bio.objectives._molecule import molecule
from domains.bio.objectives._sequence import each


class Tpsa(Objective):
    """Sum of Ertl's fragment contributions over N and O of the neutral molecule."""

    paper = Paper("ours", "Ertl, Rohde and Selzer 2000, Fast calculation of molecular polar surface area")
    direction = "min"
    unit = "A^2"
    source = "RDKit rdMolDescriptors.CalcTPSA"
    kind = "protein"

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        from rdkit.Chem.rdMolDescriptors import CalcTPSA

        return each(lambda sequence: CalcTPSA(molecule(sequence)), sequences)

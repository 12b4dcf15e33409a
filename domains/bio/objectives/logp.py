"""Octanol-water partition coefficient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.guidance.objectives.base import Objective
from core.registry import Paper
from domains.bio.objectives._molecule import molecule
from domains.bio.objectives._sequence import each


class Logp(Objective):
    """Crippen's atom contributions, for the neutral molecule."""

    paper = Paper("ours", "Wildman and Crippen 1999, Prediction of physicochemical parameters by atomic contributions")
    direction = "max"
    unit = "log10"
    source = "RDKit rdMolDescriptors.CalcCrippenDescriptors"
    kind = "protein"

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        from rdkit.Chem.rdMolDescriptors import CalcCrippenDescriptors

        return each(lambda sequence: CalcCrippenDescriptors(molecule(sequence))[0], sequences)

"""Melting temperature of short DNA."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.guidance.objectives.base import Objective
from core.registry import Paper
from domains.bio.alphabet import DNA
from domains.bio.objectives._sequence import each

# The nearest-neighbour model takes one two-state transition for granted, which longer strands do not make.
_SHORTEST, _LONGEST = 8, 60


class MeltingTemperature(Objective):
    """Nearest neighbours at 50 mM Na+ and 25 nM of each strand; 8 to 60 bases, NaN outside."""

    paper = Paper("ours", "Allawi and SantaLucia 1997, Thermodynamics and NMR of internal G.T mismatches in DNA")
    direction = "max"
    unit = "deg C"
    source = "Biopython MeltingTemp.Tm_NN"
    kind = "dna"

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        from Bio.SeqUtils import MeltingTemp

        def melting(sequence: str) -> float:
            inside = len(sequence) <= _LONGEST
            return float(MeltingTemp.Tm_NN(sequence, nn_table=MeltingTemp.DNA_NN3)) if inside else np.nan

        return each(melting, sequences, shortest=_SHORTEST, alphabet=DNA)

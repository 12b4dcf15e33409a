"""Share of G and C."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.guidance.objectives.base import Objective
from core.registry import Paper
from domains.bio.alphabet import DNA
from domains.bio.objectives._sequence import each


class GcContent(Objective):
    """G and C over all bases: `gc_content:near:0.5`."""

    paper = Paper("ours", "Share of guanine and cytosine")
    direction = "max"
    unit = "share"
    source = "computed here"
    kind = "dna"

    def score(self, sequences: Sequence[str]) -> NDArray[np.float64]:
        return each(lambda sequence: sum(map(sequence.count, "GC")) / len(sequence), sequences, alphabet=DNA)

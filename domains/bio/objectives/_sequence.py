"""What objectives on plain sequences share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from domains.bio.alphabet import PROTEIN, Alphabet


def each(
    function: Callable[[str], float], sequences: Sequence[str], shortest: int = 1, alphabet: Alphabet = PROTEIN
) -> NDArray[np.float64]:
    """`function` of every sequence; NaN for foreign letters and for fewer than `shortest` letters."""
    values = [
        function(sequence) if len(sequence) >= shortest and alphabet.fault(sequence) is None else math.nan
        for sequence in sequences
    ]
    return np.array(values, dtype=np.float64)

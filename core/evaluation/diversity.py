"""How different the members of one set are from each other."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cpdist


def mean_pairwise_distance(samples: Sequence[Sequence[Hashable]], seed: int, pairs: int = 20000) -> float:
    """Mean Levenshtein distance over the longer length, 0 all alike, 1 nothing in common.

    Every pair is measured when there are at most `pairs` of them, else that many are drawn at
    random. NaN for fewer than two samples.
    """
    n = len(samples)
    if n < 2:
        return math.nan
    if n * (n - 1) // 2 <= pairs:
        left, right = np.triu_indices(n, k=1)
    else:
        generator = np.random.default_rng(seed)
        left = generator.integers(n, size=pairs)
        # A non-zero step around the ring never pairs a sample with itself.
        right = (left + generator.integers(1, n, size=pairs)) % n
    distances = cpdist(
        [samples[i] for i in left.tolist()],
        [samples[i] for i in right.tolist()],
        scorer=Levenshtein.normalized_distance,
        dtype=np.float64,
        workers=1,
    )
    return float(distances.mean())

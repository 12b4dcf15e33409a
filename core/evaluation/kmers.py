"""How far the k-mer composition of two sets of sequences lies apart."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np


def kmer_counts(sequences: Sequence[str], k: int) -> Counter[str]:
    """How often each k-mer occurs, overlaps counted; a sequence shorter than k has none."""
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    counts: Counter[str] = Counter()
    for sequence in sequences:
        counts.update(sequence[start : start + k] for start in range(len(sequence) - k + 1))
    return counts


def kmer_js(a: Sequence[str], b: Sequence[str], k: int) -> float:
    """Jensen-Shannon divergence of two k-mer distributions, in bits: 0 alike, 1 disjoint.

    NaN when either set holds no k-mer at all.
    """
    return _jensen_shannon(kmer_counts(a, k), kmer_counts(b, k))


def _jensen_shannon(a: Counter[str], b: Counter[str]) -> float:
    total_a, total_b = a.total(), b.total()
    if not (total_a and total_b):
        return math.nan
    # Sorted, so that the sum does not depend on the order of the sequences.
    keys = sorted(a.keys() | b.keys())
    p = np.array([a[key] for key in keys]) / total_a
    q = np.array([b[key] for key in keys]) / total_b
    middle = (p + q) / 2
    divergence = 0.0
    for side in (p, q):
        seen = side > 0
        divergence += 0.5 * float(np.sum(side[seen] * np.log2(side[seen] / middle[seen])))
    return min(max(divergence, 0.0), 1.0)

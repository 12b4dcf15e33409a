"""Distance of k-mer frequencies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from core.registry import Paper
from domains.base import Metric, MetricContext

_ORDERS = (1, 2, 3)


class KmerSpectrum(Metric):
    """`kmer_js_K`: Jensen-Shannon divergence in bits between the pooled k-mers of samples and reference.

    `kmer_js_K_floor` is what as many real sequences reach, since the divergence grows as
    samples get fewer: the holdout against the reference, else one half of the reference
    against the other; NaN where neither holds as many.
    """

    paper = Paper("ours", "Lin 1991, Divergence measures based on the Shannon entropy")

    def compute(self, samples: Sequence[str], reference: Sequence[str], context: MetricContext) -> dict[str, float]:
        from core.evaluation.kmers import kmer_js, real_floor

        n = len(samples)
        target, pool = _real(n, reference, context)
        values: dict[str, float] = {}
        for k in _ORDERS:
            values[f"kmer_js_{k}"] = kmer_js(samples, reference, k)
            values[f"kmer_js_{k}_floor"] = real_floor(target, pool, k, n, context.seed) if pool else math.nan
        return values


def _real(n: int, reference: Sequence[str], context: MetricContext) -> tuple[Sequence[str], Sequence[str]]:
    """What a floor is measured against, and at least n real sequences apart from it; empty if there are none."""
    if n and reference and len(context.holdout) >= n:
        return reference, context.holdout
    if not n or len(reference) < 2 * n:
        return [], []
    order = np.random.default_rng(context.seed).permutation(len(reference))
    halves = [[reference[int(i)] for i in order[start::2]] for start in (0, 1)]
    return halves[0], halves[1]

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
    samples get fewer: drawn from the holdout, else from the reference and then taken out of
    it; NaN where neither holds enough.
    """

    paper = Paper("ours", "Lin 1991, Divergence measures based on the Shannon entropy")

    def compute(self, samples: Sequence[str], reference: Sequence[str], context: MetricContext) -> dict[str, float]:
        from core.evaluation.kmers import kmer_js

        real, rest = _same_size(len(samples), reference, context)
        values: dict[str, float] = {}
        for k in _ORDERS:
            values[f"kmer_js_{k}"] = float(kmer_js(samples, reference, k)) if samples and reference else math.nan
            values[f"kmer_js_{k}_floor"] = float(kmer_js(real, rest, k)) if real else math.nan
        return values


def _same_size(n: int, reference: Sequence[str], context: MetricContext) -> tuple[list[str], list[str]]:
    """n real sequences, and the reference without them."""
    generator = np.random.default_rng(context.seed)
    if reference and len(context.holdout) >= n:
        chosen = generator.choice(len(context.holdout), n, replace=False)
        return [context.holdout[i] for i in chosen], list(reference)
    if len(reference) < 2 * n:
        return [], []
    order = generator.permutation(len(reference))
    return [reference[i] for i in order[:n]], [reference[i] for i in order[n:]]

"""Distance of GC contents."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from core.registry import Paper
from domains.base import Metric, MetricContext
from domains.bio.objectives.gc_content import GcContent


class GcDistance(Metric):
    """`gc_mean`, the mean share of G and C in a sample, and `gc_wasserstein`, how far the distribution of that
    share lies from the reference's, both as shares of 1.
    """

    paper = Paper("ours", "1-Wasserstein distance of GC contents")

    def compute(self, samples: Sequence[str], reference: Sequence[str], context: MetricContext) -> dict[str, float]:
        from scipy.stats import wasserstein_distance

        own, other = (values[~np.isnan(values)] for values in map(GcContent().score, (samples, reference)))
        if not len(own) or not len(other):
            return {"gc_mean": math.nan, "gc_wasserstein": math.nan}
        return {"gc_mean": float(own.mean()), "gc_wasserstein": float(wasserstein_distance(own, other))}

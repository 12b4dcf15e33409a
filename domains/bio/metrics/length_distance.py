"""Distance of length distributions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from core.registry import Paper
from domains.base import Metric, MetricContext


class LengthDistance(Metric):
    """`length_wasserstein`, in residues, and `length_ks`, the largest gap of the two distribution functions."""

    paper = Paper("ours", "1-Wasserstein distance and Kolmogorov-Smirnov statistic of lengths")

    def compute(self, samples: Sequence[str], reference: Sequence[str], context: MetricContext) -> dict[str, float]:
        from scipy.stats import wasserstein_distance

        if not samples or not reference:
            return {"length_wasserstein": math.nan, "length_ks": math.nan}
        ours, theirs = [len(s) for s in samples], [len(s) for s in reference]
        places = np.union1d(ours, theirs)
        below = [np.searchsorted(np.sort(lengths), places, side="right") / len(lengths) for lengths in (ours, theirs)]
        return {
            "length_wasserstein": float(wasserstein_distance(ours, theirs)),
            "length_ks": float(np.abs(below[0] - below[1]).max()),
        }

"""How much samples differ from one another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from core.registry import Paper
from domains.base import Metric, MetricContext

_PAIRS = 20_000


class Diversity(Metric):
    """`diversity`: mean normalised Levenshtein distance between two samples, repeats included.

    `diversity_reference` is the same of the training set.
    """

    paper = Paper("ours", "internal diversity as in MOSES", "1811.12823", "edit distance in place of Tanimoto")

    def compute(self, samples: Sequence[str], reference: Sequence[str], context: MetricContext) -> dict[str, float]:
        from core.evaluation.diversity import mean_pairwise_distance

        def spread(values: Sequence[str]) -> float:
            return float(mean_pairwise_distance(values, context.seed, _PAIRS)) if len(values) > 1 else math.nan

        return {"diversity": spread(samples), "diversity_reference": spread(reference)}

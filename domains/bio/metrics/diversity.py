"""How much samples differ from one another."""

from __future__ import annotations

from collections.abc import Sequence

from core.registry import Paper
from domains.base import Metric, MetricContext


class Diversity(Metric):
    """`diversity`: mean normalised Levenshtein distance between two samples, repeats included."""

    paper = Paper("ours", "internal diversity as in MOSES", "1811.12823", "edit distance in place of Tanimoto")

    def compute(self, samples: Sequence[str], reference: Sequence[str], context: MetricContext) -> dict[str, float]:
        from core.evaluation.diversity import mean_pairwise_distance

        return {"diversity": mean_pairwise_distance(samples, context.seed)}

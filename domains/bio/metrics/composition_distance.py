"""Distance of residue frequencies."""

from __future__ import annotations

from collections.abc import Sequence

from core.registry import Paper
from domains.base import Metric, MetricContext


class CompositionDistance(Metric):
    """`composition_js`: Jensen-Shannon divergence in bits of the pooled residue frequencies."""

    paper = Paper("ours", "Lin 1991, Divergence measures based on the Shannon entropy")

    def compute(self, samples: Sequence[str], reference: Sequence[str], context: MetricContext) -> dict[str, float]:
        from core.evaluation.kmers import kmer_js

        return {"composition_js": kmer_js(samples, reference, 1)}

"""Distance of k-mer frequencies."""

from __future__ import annotations

from collections.abc import Sequence

from core.registry import Paper
from domains.base import Metric, MetricContext

_ORDERS = (2, 3)


class KmerSpectrum(Metric):
    """`kmer_js_K`: Jensen-Shannon divergence in bits between the pooled k-mers of samples and reference.

    It grows as samples get fewer, so it means nothing without the floor of as many real sequences.
    """

    paper = Paper("ours", "Lin 1991, Divergence measures based on the Shannon entropy")

    def compute(self, samples: Sequence[str], reference: Sequence[str], context: MetricContext) -> dict[str, float]:
        from core.evaluation.kmers import kmer_js

        return {f"kmer_js_{k}": kmer_js(samples, reference, k) for k in _ORDERS}

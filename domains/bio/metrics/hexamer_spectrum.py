"""Distance of 6-mer frequencies, class by class."""

from __future__ import annotations

from collections.abc import Sequence

from core.registry import Paper
from domains.base import Metric, MetricContext

_ORDER = 6


class HexamerSpectrum(Metric):
    """`kmer_js_6`: Jensen-Shannon divergence in bits between the pooled 6-mers of samples and reference, on
    the strand as given.

    It grows as samples get fewer, so it means nothing without the floor of as many real sequences. Against
    a reference of one class it is that class's: samples asked for a class are measured against it alone.
    """

    paper = Paper("ours", "Lin 1991, Divergence measures based on the Shannon entropy")

    def compute(self, samples: Sequence[str], reference: Sequence[str], context: MetricContext) -> dict[str, float]:
        from core.evaluation.kmers import kmer_js

        return {f"kmer_js_{_ORDER}": kmer_js(samples, reference, _ORDER)}

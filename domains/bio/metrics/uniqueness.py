"""Share of valid samples that differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

from core.registry import Paper
from domains.base import Metric, MetricContext
from domains.bio.alphabet import alphabet_of
from domains.bio.metrics.validity import valid


class Uniqueness(Metric):
    """`unique`: distinct valid samples over valid samples; DNA and its reverse complement count as one."""

    paper = Paper("ours", "uniqueness as in MOSES", "1811.12823", "over all valid samples, not the first 10,000")

    def compute(self, samples: Sequence[str], reference: Sequence[str], context: MetricContext) -> dict[str, float]:
        good = valid(samples, context)
        distinct = set(map(alphabet_of(context.tokenizer).canonical, good))
        return {"unique": len(distinct) / len(good) if good else math.nan}

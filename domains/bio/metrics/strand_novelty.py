"""How far DNA samples are from the training set, whichever strand is read."""

from __future__ import annotations

import math
from collections.abc import Sequence

from core.registry import Paper
from domains.base import Metric, MetricContext
from domains.bio.alphabet import alphabet_of
from domains.bio.families import shared_words


class StrandNovelty(Metric):
    """Of the distinct samples, a sequence and its reverse complement counted as one: `novel`, the share
    not in the training set on either strand; `novel_20mers`, the share that shares no 20 bases in a row
    with a training sequence on either strand.
    """

    paper = Paper("ours", "novelty as in MOSES", "1811.12823", "on both strands, and by 20-mers beside it")

    def compute(self, samples: Sequence[str], reference: Sequence[str], context: MetricContext) -> dict[str, float]:
        canonical = alphabet_of(context.tokenizer).canonical
        distinct = list(dict.fromkeys(map(canonical, samples)))
        if not distinct or not reference:
            return {"novel": math.nan, "novel_20mers": math.nan}
        known = set(map(canonical, reference))
        wanted = {sample: shared_words(sample) for sample in distinct}
        among = set[str]().union(*wanted.values())
        seen = {word for one in known for word in shared_words(one) & among}
        return {
            "novel": sum(sample not in known for sample in distinct) / len(distinct),
            "novel_20mers": sum(words.isdisjoint(seen) for words in wanted.values()) / len(distinct),
        }

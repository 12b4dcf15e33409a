"""Share of samples that are what was asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence

from core.registry import Paper
from domains.base import Metric, MetricContext
from domains.bio.alphabet import alphabet_of


class Validity(Metric):
    """`valid`: share of samples that are not empty, in the alphabet and within every constraint."""

    paper = Paper("ours", "validity as in MOSES", "1811.12823", "peptides in place of molecules; constraints count")

    def compute(self, samples: Sequence[str], reference: Sequence[str], context: MetricContext) -> dict[str, float]:
        return {"valid": len(valid(samples, context)) / len(samples) if samples else math.nan}


def valid(samples: Sequence[str], context: MetricContext) -> list[str]:
    """The valid ones, in order, repeats included."""
    alphabet = alphabet_of(context.tokenizer)
    return [
        sample
        for sample in samples
        if sample
        and alphabet.fault(sample) is None
        and all(constraint.check(sample) for constraint in context.constraints)
    ]

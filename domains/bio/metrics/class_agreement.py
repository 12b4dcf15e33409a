"""Whether samples look like the class that they were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from core.evaluation.kmer_classifier import KmerClassifier
from core.registry import Paper
from domains.base import Metric, MetricContext

_ORDER = 6


class ClassAgreement(Metric):
    """`class_agreement`: share of the samples that a logistic regression on 6-mers takes for the class asked for.

    It learns from the training sequences of every class, on the strand as given, and has seen no sample.
    Nothing where no class was asked for, or where the reference has no other.
    """

    paper = Paper("ours", "6-mer logistic regression as a judge of classes")

    def compute(self, samples: Sequence[str], reference: Sequence[str], context: MetricContext) -> dict[str, float]:
        classes = {label: tuple(members) for label, members in context.classes.items() if members}
        if context.label not in classes or len(classes) < 2 or not samples:
            return {}
        judge = _judge(tuple(classes.items()))
        return {"class_agreement": float((judge.predict(samples) == judge.labels.index(context.label)).mean())}


@lru_cache(maxsize=1)
def _judge(classes: tuple[tuple[str, tuple[str, ...]], ...]) -> KmerClassifier:
    """Learnt once for samples and floor; on 20,000 sites that takes seconds."""
    return KmerClassifier.fit(dict(classes), _ORDER)

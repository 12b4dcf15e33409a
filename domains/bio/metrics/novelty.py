"""How far samples are from the training set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.registry import Paper
from core.tokenizers.base import Tokenizer
from domains.base import Metric, MetricContext
from domains.bio.alphabet import alphabet_of, reverse_complement

_CELLS = 1 << 23
_NEAR = 0.8


class Novelty(Metric):
    """Of the distinct samples: `novel`, the share not in the training set; `novel_below_0.8`, the
    share whose nearest training sequence has an identity under 0.8; `nearest_identity`, the mean.
    """

    paper = Paper("ours", "novelty as in MOSES", "1811.12823", "identity to the nearest training sequence beside it")

    def compute(self, samples: Sequence[str], reference: Sequence[str], context: MetricContext) -> dict[str, float]:
        distinct = list(dict.fromkeys(samples))
        if not distinct or not reference:
            return dict.fromkeys(("novel", "novel_below_0.8", "nearest_identity"), math.nan)
        known = set(reference)
        _, identity = nearest(distinct, reference, context.tokenizer)
        return {
            "novel": sum(sample not in known for sample in distinct) / len(distinct),
            "novel_below_0.8": float((identity < _NEAR).mean()),
            "nearest_identity": float(identity.mean()),
        }


def nearest(
    samples: Sequence[str], training: Sequence[str], tokenizer: Tokenizer[Any] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Index and identity of each sample's nearest training sequence; of equals, the first.

    Identity is 1 - Levenshtein distance / length of the longer one; of DNA, on the strand where it is higher.
    """
    if not training:
        raise ValueError("the nearest of no sequences is asked for")
    place = {sample: row for row, sample in enumerate(dict.fromkeys(samples))}
    rows = np.array([place[sample] for sample in samples], dtype=np.int64)
    index, identity = _nearest(tuple(place), tuple(training), alphabet_of(tokenizer).double)
    return index[rows], identity[rows]


@lru_cache(maxsize=1)
def _nearest(
    samples: tuple[str, ...], training: tuple[str, ...], double: bool
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """`nearest` of distinct samples, kept: the metric and the table of samples ask the same."""
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist

    index = np.zeros(len(samples), dtype=np.int64)
    identity = np.zeros(len(samples))
    step = max(1, _CELLS // len(training))

    def identities(rows: Sequence[str]) -> NDArray[np.float32]:
        return cdist(rows, training, scorer=Levenshtein.normalized_similarity, dtype=np.float32, workers=-1)

    for start in range(0, len(samples), step):
        rows = slice(start, start + step)
        table = identities(samples[rows])
        if double:
            table = np.maximum(table, identities(list(map(reverse_complement, samples[rows]))))
        index[rows] = table.argmax(axis=1)
        identity[rows] = table.max(axis=1)
    return index, identity

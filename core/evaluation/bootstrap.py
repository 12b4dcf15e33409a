"""Percentile bootstrap intervals (Efron 1979)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

Values = Float[np.ndarray, " N"]
# Bounds the index matrix of one block of resamples.
_BLOCK = 2_000_000


class Interval(NamedTuple):
    """An estimate on the sample itself and the percentile bounds around it."""

    estimate: float
    low: float
    high: float


def bootstrap_ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    generator: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Interval of a ratio of sums, such as nats over tokens, whole records resampled.

    Ones below make it a mean, and differences of two models on the same records a paired interval.
    """
    columns = [_vector(numerator), _vector(denominator)]
    n = columns[0].size
    if columns[1].size != n:
        raise ValueError(f"records do not pair up: {n} and {columns[1].size}")
    if not (0 < level < 1 and resamples >= 1):
        raise ValueError(f"level {level} or resamples {resamples} out of range")
    table = np.stack(columns)
    block = max(1, _BLOCK // n)
    drawn = []
    for start in range(0, resamples, block):
        rows = generator.integers(n, size=(min(block, resamples - start), n))
        above, below = table[:, rows].mean(axis=2)
        drawn.append(above / below)
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    above, below = table.mean(axis=1)
    return Interval(float(above / below), float(low), float(high))


def _vector(values: ArrayLike) -> Values:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(f"a bootstrap needs a non-empty vector, got shape {vector.shape}")
    return vector

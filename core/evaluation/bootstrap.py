"""Percentile bootstrap intervals (Efron 1979)."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

Values = Float[np.ndarray, " N"]
# Bounds the index matrix of one block of resamples.
_BLOCK = 2_000_000


class Interval(NamedTuple):
    """An estimate on the sample itself and the percentile bounds around it."""

    estimate: float
    low: float
    high: float


def bootstrap_mean(
    values: ArrayLike, generator: np.random.Generator, resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Interval of a mean."""
    return _interval([_vector(values)], lambda means: means[0], generator, resamples, level)


def bootstrap_ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    generator: np.random.Generator,
    resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Interval of a ratio of sums, such as nats over tokens, whole records resampled."""
    columns = [_vector(numerator), _vector(denominator)]
    return _interval(columns, lambda means: means[0] / means[1], generator, resamples, level)


def bootstrap_paired(
    a: ArrayLike, b: ArrayLike, generator: np.random.Generator, resamples: int = 2000, level: float = 0.95
) -> Interval:
    """Interval of mean(a) - mean(b) where both were measured on the same records."""
    columns = [_vector(a), _vector(b)]
    return _interval(columns, lambda means: means[0] - means[1], generator, resamples, level)


def _vector(values: ArrayLike) -> Values:
    vector = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(f"a bootstrap needs a non-empty vector, got shape {vector.shape}")
    return vector


def _interval(
    columns: list[Values],
    statistic: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    generator: np.random.Generator,
    resamples: int,
    level: float,
) -> Interval:
    """`statistic` maps means, one row a column, to values."""
    n = columns[0].size
    if any(column.size != n for column in columns):
        raise ValueError(f"records do not pair up: {[column.size for column in columns]}")
    if not (0 < level < 1 and resamples >= 1):
        raise ValueError(f"level {level} or resamples {resamples} out of range")
    table = np.stack(columns)
    block = max(1, _BLOCK // n)
    drawn = []
    for start in range(0, resamples, block):
        rows = generator.integers(n, size=(min(block, resamples - start), n))
        drawn.append(statistic(table[:, rows].mean(axis=2)))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail])
    return Interval(float(statistic(table.mean(axis=1))), float(low), float(high))

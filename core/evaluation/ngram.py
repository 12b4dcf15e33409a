"""Interpolated n-gram language models: the floor that every sequence model must beat."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

Vector = Float[np.ndarray, " T"]
Ids = Int[np.ndarray, " T"]
Buckets = Float[np.ndarray, " K"]


class Evidence(NamedTuple):
    """What training says about each position from a context of one length; total 0 = unseen context.

    `ones`, `twos` and `more` are how many kinds of token followed the context once, twice or
    more often; `discounts` are this length's own for those three.
    """

    count: Vector
    total: Vector
    ones: Vector
    twos: Vector
    more: Vector
    discounts: tuple[float, float, float]


def witten_bell(e: Evidence, scale: Vector, lower: Vector) -> Vector:
    """Escape mass proportional to the kinds seen; scale 1 is Witten and Bell (1991)."""
    kinds = scale * (e.ones + e.twos + e.more)
    return (e.count + kinds * lower) / np.maximum(e.total + kinds, 1e-300)


def jelinek_mercer(e: Evidence, weight: Vector, lower: Vector) -> Vector:
    """A fixed weight for the relative frequency (Jelinek and Mercer 1980)."""
    return weight * e.count / np.maximum(e.total, 1.0) + (1 - weight) * lower


def kneser_ney(e: Evidence, scale: Vector, lower: Vector) -> Vector:
    """Modified Kneser-Ney (Chen and Goodman 1999) with its discounts times `scale`."""
    first, second, third = (np.minimum(scale * d, k) for k, d in enumerate(e.discounts, start=1))
    discount = np.select([e.count >= 3, e.count == 2, e.count == 1], [third, second, first], 0.0)
    freed = first * e.ones + second * e.twos + third * e.more
    return (e.count - discount + freed * lower) / np.maximum(e.total, 1.0)


@dataclass(frozen=True)
class Smoothing:
    """How a context's evidence is mixed with the next shorter context, and what may be tuned."""

    mix: Callable[[Evidence, Vector, Vector], Vector]
    grid: tuple[float, ...]
    initial: float
    continuation: bool


SMOOTHINGS = {
    "witten_bell": Smoothing(witten_bell, tuple(np.geomspace(0.05, 500, 31).tolist()), 1.0, False),
    "jelinek_mercer": Smoothing(jelinek_mercer, tuple(np.linspace(0, 0.98, 50).tolist()), 0.5, False),
    "kneser_ney": Smoothing(kneser_ney, tuple(np.linspace(0.1, 2.5, 25).tolist()), 1.0, True),
}
# Parameters are tied among contexts whose total has the same power of two, up to this many.
_BUCKETS = 16
_SWEEPS = 3


class _Positions(NamedTuple):
    """Every token to be predicted: older[j] stands j + 1 places before it, -1 beyond the start."""

    token: Ids
    older: Int[np.ndarray, "J T"]
    owner: Ids


class _Level:
    """Counts of every token after every context of one length."""

    def __init__(self, contexts: NDArray[np.int64], grams: NDArray[np.int64], width: int) -> None:
        self.contexts = contexts
        self.grams = grams
        self.width = width

    def context_of(self, shorter: Ids, oldest: Ids) -> Ids:
        """Row of each context, given the row of the one shorter by a token; -1 = unseen."""
        known = (shorter >= 0) & (oldest >= 0)
        return _rows(self.contexts, np.where(known, shorter * self.width + oldest, -1))

    def gram_of(self, context: Ids, token: Ids) -> Ids:
        return _rows(self.grams, np.where(context >= 0, context * self.width + token, -1))

    def tally(self, counts: NDArray[np.float64]) -> None:
        owner = self.grams // self.width
        size = len(self.contexts)
        self.counts = counts
        self.total = np.bincount(owner, counts, size).astype(np.float64)
        self.ones, self.twos, self.more = (
            np.bincount(owner[hit], minlength=size).astype(np.float64)
            for hit in (counts == 1, counts == 2, counts >= 3)
        )
        n1, n2, n3, n4 = (float((counts == k).sum()) for k in (1, 2, 3, 4))
        # Chen and Goodman's closed form, with plain values where small data leave it undefined.
        y = n1 / (n1 + 2 * n2) if n1 and n2 else 0.5
        ratios = (n2 / n1 if n1 else 0.5, n3 / n2 if n2 else 0.5, n4 / n3 if n3 else 0.5)
        raw = [k - (k + 1) * y * ratio for k, ratio in enumerate(ratios, start=1)]
        first, second, third = (min(max(d, 0.05), float(k)) for k, d in enumerate(raw, start=1))
        self.discounts = (first, second, third)

    def evidence(self, context: Ids, gram: Ids) -> Evidence:
        def pick(values: NDArray[np.float64], rows: Ids) -> Vector:
            # There are no contexts longer than every sequence.
            return np.where(rows >= 0, values[np.maximum(rows, 0)], 0.0) if len(values) else np.zeros(len(rows))

        columns = (pick(values, context) for values in (self.total, self.ones, self.twos, self.more))
        return Evidence(pick(self.counts, gram), *columns, discounts=self.discounts)


def _rows(table: NDArray[np.int64], keys: Ids) -> Ids:
    """Where each key stands in a sorted table, -1 where it does not."""
    if not len(table):
        return np.full(len(keys), -1)
    found = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    return np.where(table[found] == keys, found, -1)


class NGram:
    """An interpolated n-gram model of order 1 to 16 over ids `0 .. vocabulary - 1`, end token included.

    Every context length is mixed with the next shorter one down to the uniform law. The mixing
    is tuned on validation, per context length and per power of two of the context's total, by
    coordinate search; with `smoothing=None` the best of `SMOOTHINGS` on validation is kept.
    """

    def __init__(self, order: int, vocabulary: int, smoothing: str | None = None) -> None:
        if not 1 <= order <= 16:
            raise ValueError(f"orders 1 to 16 are supported, got {order}")
        if smoothing is not None and smoothing not in SMOOTHINGS:
            raise ValueError(f"unknown smoothing {smoothing!r}: known are {', '.join(SMOOTHINGS)}")
        self.order = order
        self.vocabulary = vocabulary
        self.smoothing = smoothing

    def fit(self, train: Sequence[Sequence[int]], valid: Sequence[Sequence[int]]) -> NGram:
        """Counts `train`, tunes on `valid`; returns itself."""
        if not len(train) or not len(valid):
            raise ValueError("an n-gram model needs sequences to count and sequences to tune on")
        counted, tuned = self._positions(train), self._positions(valid)
        best = math.inf
        for name in [self.smoothing] if self.smoothing else SMOOTHINGS:
            levels = self._count(counted, SMOOTHINGS[name].continuation)
            parameters, loss = _tune(_look_up(levels, tuned), SMOOTHINGS[name], 1 / (self.vocabulary + 1))
            if loss < best:
                best, chosen = loss, name
                self._levels, self._parameters = levels, parameters
        self.smoothing = chosen
        return self

    def nll(self, sequence: Sequence[int]) -> float:
        """Negative log-likelihood in nats, end token included."""
        return float(self.nlls([sequence])[0])

    def nlls(self, sequences: Sequence[Sequence[int]]) -> Float[np.ndarray, " N"]:
        """`nll` of each sequence."""
        if self.smoothing is None:
            raise ValueError("the n-gram model is not fitted yet")
        positions = self._positions(sequences)
        law = np.full(len(positions.token), 1 / (self.vocabulary + 1))
        evidence = _look_up(self._levels, positions)
        for level, parameters in zip(evidence, self._parameters, strict=True):
            law = _mix(level, SMOOTHINGS[self.smoothing], parameters, law)
        return np.bincount(positions.owner, -np.log(law), len(sequences))

    def perplexity(self, sequences: Sequence[Sequence[int]]) -> float:
        """Per token, end tokens counted."""
        return math.exp(self.nlls(sequences).sum() / sum(len(sequence) + 1 for sequence in sequences))

    def _positions(self, sequences: Sequence[Sequence[int]]) -> _Positions:
        lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
        ids = np.concatenate([np.asarray(sequence, dtype=np.int64).reshape(-1) for sequence in sequences])
        if len(ids) and not 0 <= ids.min() <= ids.max() < self.vocabulary:
            raise ValueError(f"ids must lie in 0..{self.vocabulary - 1}, got {ids.min()}..{ids.max()}")
        owner = np.repeat(np.arange(len(lengths)), lengths + 1)
        # One end after each sequence; the start stands before the first token.
        token = np.insert(ids, np.cumsum(lengths), self.vocabulary)
        place = np.arange(len(token)) - np.repeat(np.cumsum(lengths + 1) - lengths - 1, lengths + 1)
        older = np.full((self.order - 1, len(token)), -1)
        for back in range(1, self.order):
            inside, start = place >= back, place == back - 1
            older[back - 1, inside] = token[np.flatnonzero(inside) - back]
            older[back - 1, start] = self.vocabulary + 1
        return _Positions(token, older, owner)

    def _count(self, positions: _Positions, continuation: bool) -> list[_Level]:
        """With `continuation`, shorter contexts count in how many longer ones they were seen (Kneser-Ney)."""
        width, start = self.vocabulary + 2, self.vocabulary + 1
        row = np.zeros(len(positions.token), dtype=np.int64)
        contexts = np.zeros(1, dtype=np.int64)
        levels: list[_Level] = []
        shorter_grams = row
        for back in range(self.order):
            seen = row >= 0
            keys = row * width + positions.token
            grams, first, inverse, counts = np.unique(
                keys[seen], return_index=True, return_inverse=True, return_counts=True
            )
            if continuation and levels:
                below = levels[-1]
                kinds = np.bincount(shorter_grams[np.flatnonzero(seen)[first]], minlength=len(below.grams))
                # A context that begins at the start has nothing before it, so its counts stay.
                headed = below.contexts[below.grams // width] % width == start
                below.tally(np.where(headed, below.counts, kinds.astype(np.float64)))
            level = _Level(contexts, grams, width)
            level.tally(counts.astype(np.float64))
            levels.append(level)
            if back + 1 < self.order:
                shorter_grams = np.full(len(row), -1)
                shorter_grams[seen] = inverse
                oldest = positions.older[back]
                keys = np.where(seen & (oldest >= 0), row * width + oldest, -1)
                contexts = np.unique(keys[keys >= 0])
                row = _rows(contexts, keys)
        return levels


def _look_up(levels: list[_Level], positions: _Positions) -> list[Evidence]:
    row = np.zeros(len(positions.token), dtype=np.int64)
    found = []
    for back, level in enumerate(levels):
        if back:
            row = level.context_of(row, positions.older[back - 1])
        found.append(level.evidence(row, level.gram_of(row, positions.token)))
    return found


def _bucket(evidence: Evidence) -> Ids:
    return np.minimum(np.log2(np.maximum(evidence.total, 1.0)).astype(np.int64), _BUCKETS - 1)


def _mix(evidence: Evidence, smoothing: Smoothing, parameters: Buckets, lower: Vector) -> Vector:
    mixed = smoothing.mix(evidence, parameters[_bucket(evidence)], lower)
    return np.where(evidence.total > 0, mixed, lower)


def _tune(evidence: list[Evidence], smoothing: Smoothing, uniform: float) -> tuple[list[Buckets], float]:
    """Parameters `[buckets]` a level and their mean loss, by coordinate search.

    The buckets of one level share no position, so one pass a grid value settles all of them.
    """
    parameters = [np.full(_BUCKETS, smoothing.initial) for _ in evidence]
    for _ in range(_SWEEPS):
        law = np.full(len(evidence[0].count), uniform)
        for level, own in enumerate(evidence):
            bucket, seen = _bucket(own), own.total > 0
            losses = []
            for value in (None, *smoothing.grid):
                tried = law
                for k in range(level, len(evidence)):
                    trial = parameters[k] if k > level or value is None else np.full(_BUCKETS, value)
                    tried = _mix(evidence[k], smoothing, trial, tried)
                losses.append(np.bincount(bucket[seen], -np.log(tried[seen]), _BUCKETS))
            # Argmin takes the first of equals, so that a bucket without evidence stays as it is.
            best = np.argmin(losses, axis=0)
            parameters[level] = np.where(best == 0, parameters[level], np.array((0.0, *smoothing.grid))[best])
            law = _mix(own, smoothing, parameters[level], law)
    return parameters, float(-np.log(law).mean())

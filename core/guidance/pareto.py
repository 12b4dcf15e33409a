"""What is best when several utilities count: the Pareto archive and selection from a pool."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from core.evaluation.hypervolume import hypervolume, nondominated

Utilities = Float[np.ndarray, "N M"]
Indices = Int[np.ndarray, " K"]


class ParetoArchive:
    """Every non-dominated item seen so far; every utility is maximised.

    Items with equal utilities are all kept; an item enters once, under the utilities it first
    came with; an item with a NaN among its utilities never enters.
    """

    def __init__(self, objectives: int) -> None:
        self.objectives = objectives
        self.utilities: Utilities = np.zeros((0, objectives))
        self.items: list[Any] = []

    def __len__(self) -> int:
        return len(self.items)

    def add(self, utilities: ArrayLike, items: Sequence[Hashable]) -> int:
        """Offers items with their utilities `[N, M]`; returns how many of them are in the archive now."""
        table = np.asarray(utilities, dtype=np.float64).reshape(len(items), -1) if len(items) else self.utilities[:0]
        if table.shape[1] != self.objectives:
            raise ValueError(f"the archive holds {self.objectives} utilities an item, got {table.shape[1]}")
        known = set(self.items)
        fresh: dict[Hashable, int] = {}
        for row in np.flatnonzero(~np.isnan(table).any(axis=1)).tolist():
            if items[row] not in known:
                fresh.setdefault(items[row], row)
        merged = np.concatenate([self.utilities, table[list(fresh.values())]])
        merged_items = [*self.items, *fresh]
        keep = nondominated(merged)
        held = len(self.items)
        self.utilities = merged[keep]
        self.items = [item for item, kept in zip(merged_items, keep, strict=True) if kept]
        return int(keep[held:].sum())

    def hypervolume(self, reference: ArrayLike | float, bounds: tuple[ArrayLike, ArrayLike] | None = None) -> float:
        """Hypervolume above `reference`; see `scaled` for `bounds`, in whose units the reference then is."""
        points = self.utilities if bounds is None else scaled(self.utilities, bounds)
        return hypervolume(points, np.broadcast_to(np.asarray(reference, dtype=np.float64), (self.objectives,)))


def scaled(utilities: Utilities, bounds: tuple[ArrayLike, ArrayLike]) -> Utilities:
    """Utilities in units in which the bounds `(low, high)` lie at 0 and 1; nothing is clipped."""
    low, high = (np.asarray(bound, dtype=np.float64) for bound in bounds)
    if not (high > low).all():
        raise ValueError(f"each upper bound must exceed its lower bound, got {low.tolist()} and {high.tolist()}")
    return (utilities - low) / (high - low)


def fronts(utilities: Utilities) -> Iterator[Indices]:
    """Non-dominated sorting: indices of the first front, the second, ...; NaN rows are in none."""
    remaining = np.flatnonzero(~np.isnan(utilities).any(axis=1))
    while len(remaining):
        best = nondominated(utilities[remaining])
        yield remaining[best]
        remaining = remaining[~best]


def crowding(utilities: Utilities) -> Float[np.ndarray, " N"]:
    """Crowding distance within one front (Deb et al. 2002); infinite at the ends of a column."""
    distance = np.zeros(len(utilities))
    for column in utilities.T:
        order = np.argsort(column, kind="stable")
        ordered = column[order]
        distance[order[[0, -1]]] = np.inf
        span = ordered[-1] - ordered[0]
        if np.isfinite(span) and span > 0:
            distance[order[1:-1]] += (ordered[2:] - ordered[:-2]) / span
    return distance


def best_of(utilities: ArrayLike, n: int) -> Indices:
    """Indices of the n best rows: whole fronts first, the last one by crowding, most isolated first.

    Ascending; fewer than n when fewer rows are free of NaN.
    """
    table = np.asarray(utilities, dtype=np.float64)
    chosen: list[int] = []
    for front in fronts(table):
        missing = n - len(chosen)
        if missing <= 0:
            break
        if len(front) > missing:
            front = front[np.argsort(-crowding(table[front]), kind="stable")[:missing]]
        chosen.extend(front.tolist())
    return np.array(sorted(chosen), dtype=np.int64)

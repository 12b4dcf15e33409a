"""Exact hypervolume: the volume that a set of points dominates above a reference point."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

Points = Float[np.ndarray, "N M"]


def hypervolume(points: ArrayLike, reference: ArrayLike | float) -> float:
    """Volume dominated by `points` `[N, M]` and above `reference`; every column is maximised.

    Rows with a NaN are ignored, and so are points that are not above the reference in every
    column. Two columns are swept, three swept with a staircase, more recurse over exclusive
    volumes as WFG does (While, Bradstreet, Barone 2012).
    """
    table = np.asarray(points, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"points must be a matrix, got shape {table.shape}")
    table = table[~np.isnan(table).any(axis=1)] - np.asarray(reference, dtype=np.float64)
    table = table[(table > 0).all(axis=1)]
    if table.shape[1] == 0 or len(table) == 0:
        return 0.0
    if not np.isfinite(table).all():
        raise ValueError("an infinite point has no hypervolume")
    return _volume(table[nondominated(table)])


def nondominated(points: Points) -> Bool[np.ndarray, " N"]:
    """Which rows no other row dominates; equal rows do not dominate each other.

    Rows must be free of NaN.
    """
    # A dominating row comes earlier in descending lexicographic order, infinities included.
    order = np.lexsort(-points.T[::-1]) if points.shape[1] else np.arange(len(points))
    keep = np.zeros(len(points), dtype=bool)
    while len(order):
        head = points[order[0]]
        rest = points[order]
        equal = (rest == head).all(axis=1)
        keep[order[equal]] = True
        order = order[(rest > head).any(axis=1)]
    return keep


def _volume(points: Points) -> float:
    """Volume above the origin; points are positive."""
    width = points.shape[1]
    if len(points) == 1:
        return float(points[0].prod())
    if width == 1:
        return float(points.max())
    if width == 2:
        return _area(points)
    if width == 3:
        return _staircase(points)
    points = points[np.argsort(-points[:, -1], kind="stable")]
    total = 0.0
    for i, point in enumerate(points):
        # Earlier points reach at least as high in the last column, which thus factors out.
        limited = np.minimum(points[:i, :-1], point[:-1])
        covered = _volume(limited[nondominated(limited)]) if i else 0.0
        total += float(point[-1]) * (float(point[:-1].prod()) - covered)
    return total


def _area(points: Points) -> float:
    points = points[np.argsort(-points[:, 0], kind="stable")]
    heights = np.maximum.accumulate(points[:, 1])
    return float(np.sum(points[:, 0] * np.diff(heights, prepend=0.0)))


def _staircase(points: Points) -> float:
    """Sweeps the third column downwards over a growing two-column front."""
    points = points[np.argsort(-points[:, 2], kind="stable")]
    # The front as steps: abscissas ascend between the sentinels, ordinates descend.
    xs, ys = [0.0, float("inf")], [float("inf"), 0.0]
    area = volume = 0.0
    depths = [*points[:, 2].tolist(), 0.0]
    for (x, y, _), depth, following in zip(points.tolist(), depths, depths[1:], strict=False):
        right = bisect_left(xs, x)
        # ys[right] is the highest step at or right of x.
        if ys[right] < y:
            left = right - 1
            edge, level = x, ys[right]
            while ys[left] <= y:
                area += (edge - xs[left]) * (y - level)
                edge, level = xs[left], ys[left]
                left -= 1
            area += (edge - xs[left]) * (y - level)
            stop = right + 1 if xs[right] == x else right
            xs[left + 1 : stop] = [x]
            ys[left + 1 : stop] = [y]
        volume += area * (depth - following)
    return volume

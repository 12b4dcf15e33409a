import time

import numpy as np
import pytest
from numpy.typing import NDArray

from core.evaluation.hypervolume import hypervolume
from core.guidance import pareto
from core.guidance.pareto import ParetoArchive, best_of, crowding, fronts, scaled


def undominated(table: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The O(n^2) definition, row by row."""
    keep = np.atleast_1d(~np.isnan(table).any(axis=1))
    valid = table[keep]
    for i in np.flatnonzero(keep):
        keep[i] = not ((valid >= table[i]).all(axis=1) & (valid > table[i]).any(axis=1)).any()
    return keep


def vectors(n: int, width: int, seed: int) -> NDArray[np.float64]:
    """Random vectors on a coarse grid or twice the same, some with NaN or infinities."""
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(n, width))
    table[::2] = np.round(table[::2] * 2) / 2
    table[3::4] = table[1::4]
    table[generator.random((n, width)) < 0.01] = np.nan
    table[generator.random((n, width)) < 0.001] = -np.inf
    return table


def check_archive(n: int, width: int, chunks: int) -> None:
    """Law 4.14: the archive is the definition, in whatever portions and however often items are offered."""
    table = vectors(n, width, seed=width)
    archive = ParetoArchive(width)
    for part in np.array_split(np.arange(n), chunks):
        archive.add(table[part], part.tolist())
        archive.add(table[part[:50]], part[:50].tolist())
    expected = np.flatnonzero(undominated(table))
    assert sorted(archive.items) == expected.tolist()
    assert np.array_equal(archive.utilities, table[archive.items])


@pytest.mark.parametrize(("n", "width", "chunks"), [(2000, 1, 3), (10_000, 2, 7), (2000, 3, 1), (10_000, 4, 20)])
def test_archive_is_the_definition(n: int, width: int, chunks: int) -> None:
    check_archive(n, width, chunks)


def drops_ties(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    _, first = np.unique(points, axis=0, return_index=True)
    keep = np.zeros(len(points), dtype=bool)
    keep[first] = True
    return keep & undominated(points)


def asks_strictness_everywhere(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.array([not (points > row).all(axis=1).any() for row in points], dtype=bool)


@pytest.mark.parametrize("fault", [drops_ties, asks_strictness_everywhere])
def test_planted_faults_break_the_law(fault: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pareto, "nondominated", fault)
    with pytest.raises(AssertionError):
        check_archive(600, 3, 4)


def test_add_counts_ties_duplicates_and_nan() -> None:
    archive = ParetoArchive(2)
    assert archive.add([[1, 2], [1, 2], [2, 1], [np.nan, 9]], ["a", "b", "c", "d"]) == 3
    assert archive.add([[1, 2]], ["a"]) == 0 and len(archive) == 3
    assert archive.add([[3, 3]], ["e"]) == 1 and archive.items == ["e"]
    assert archive.add(np.zeros((0, 2)), []) == 0
    with pytest.raises(ValueError, match="2 utilities"):
        archive.add([[1.0, 2.0, 3.0]], ["f"])


def test_hypervolume_in_units_of_the_bounds() -> None:
    archive = ParetoArchive(2)
    archive.add([[10.0, 0.5], [20.0, 0.25]], ["a", "b"])
    assert archive.hypervolume([0.0, 0.0]) == hypervolume(archive.utilities, [0.0, 0.0])
    assert archive.hypervolume(0.0, bounds=([0.0, 0.0], [20.0, 1.0])) == pytest.approx(0.5 * 0.5 + 0.5 * 0.25)
    with pytest.raises(ValueError, match="exceed"):
        scaled(archive.utilities, ([0.0, 1.0], [1.0, 1.0]))


def test_fronts_partition_the_valid_rows_in_order() -> None:
    table = vectors(400, 3, seed=5)
    found = list(fronts(table))
    assert sorted(np.concatenate(found).tolist()) == np.flatnonzero(~np.isnan(table).any(axis=1)).tolist()
    left = table.copy()
    for front in found:
        assert np.array_equal(front, np.flatnonzero(undominated(left)))
        left[front] = np.nan


def test_best_of_takes_whole_fronts_then_the_isolated() -> None:
    line = np.array([[0.0, 1.0], [0.1, 0.9], [0.5, 0.5], [0.49, 0.51], [1.0, 0.0], [-1.0, -1.0], [np.nan, 5.0]])
    assert best_of(line, 3).tolist() in ([0, 2, 4], [0, 1, 4], [0, 3, 4])
    assert np.isinf(crowding(line[:5])[[0, 4]]).all()
    assert best_of(line, 5).tolist() == [0, 1, 2, 3, 4]
    assert best_of(line, 99).tolist() == [0, 1, 2, 3, 4, 5]
    assert best_of(line, 0).tolist() == [] == best_of(np.zeros((0, 2)), 3).tolist()


def test_best_of_a_large_pool_takes_seconds() -> None:
    start = time.perf_counter()
    assert len(best_of(vectors(4096, 4, seed=1), 256)) == 256
    assert time.perf_counter() - start < 5

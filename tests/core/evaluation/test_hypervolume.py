import itertools
import time

import numpy as np
import pytest
from numpy.typing import NDArray
from pymoo.indicators.hv import HV

from core.evaluation import hypervolume as module
from core.evaluation.hypervolume import hypervolume, nondominated


def inclusion_exclusion(points: NDArray[np.float64]) -> float:
    total = 0.0
    for size in range(1, len(points) + 1):
        for subset in itertools.combinations(points, size):
            total += (-1) ** (size + 1) * np.prod(np.clip(np.min(subset, axis=0), 0, None))
    return float(total)


def check_against_inclusion_exclusion(width: int) -> None:
    generator = np.random.default_rng(width)
    for trial in range(12):
        points = generator.normal(0.5, 0.6, size=(9, width))
        if trial % 2:  # a coarse grid has ties in every column and whole duplicates
            points = np.round(points * 3) / 3
        shifted = points + 2.0
        assert hypervolume(shifted, [2.0] * width) == pytest.approx(inclusion_exclusion(points), abs=1e-9)


@pytest.mark.parametrize("width", range(1, 7))
def test_against_inclusion_exclusion(width: int) -> None:
    check_against_inclusion_exclusion(width)


@pytest.mark.parametrize("width", [2, 3, 4])
def test_against_monte_carlo(width: int) -> None:
    generator = np.random.default_rng(7)
    points = generator.random((30, width))
    draws = generator.random((20000, width))
    below = np.array([(points >= draw).all(axis=1).any() for draw in draws])
    assert hypervolume(points, np.zeros(width)) == pytest.approx(below.mean(), abs=4 * np.sqrt(0.25 / 20000))


def check_against_pymoo(width: int) -> None:
    points = np.random.default_rng(1).random((40, width))
    expected = HV(ref_point=np.zeros(width))(-points)
    assert hypervolume(points, np.zeros(width)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("width", [2, 3, 4, 5])
def test_against_pymoo(width: int) -> None:
    check_against_pymoo(width)


def volume_of_the_box(points: NDArray[np.float64]) -> float:
    return float(points.max(axis=0).prod())


def earlier_points_forgotten(points: NDArray[np.float64]) -> float:
    return float(points.prod(axis=1).sum())


@pytest.mark.parametrize("width", [2, 3, 4])
@pytest.mark.parametrize("fault", [volume_of_the_box, earlier_points_forgotten])
def test_planted_faults_are_caught(fault: object, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_volume", fault)
    for check in (check_against_inclusion_exclusion, check_against_pymoo):
        with pytest.raises(AssertionError):
            check(width)


def test_rows_that_do_not_count() -> None:
    points = np.array([[1.0, 1.0], [np.nan, 9.0], [5.0, 0.0], [-1.0, 3.0]])
    assert hypervolume(points, [0.0, 0.0]) == 1.0
    assert hypervolume(np.zeros((0, 3)), 0.0) == 0.0
    with pytest.raises(ValueError, match="infinite"):
        hypervolume([[np.inf, 1.0]], 0.0)
    with pytest.raises(ValueError, match="matrix"):
        hypervolume([1.0, 2.0], 0.0)


def test_three_hundred_points_in_four_columns_take_seconds() -> None:
    points = np.abs(np.random.default_rng(0).normal(size=(300, 4)))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    assert nondominated(points).all()
    start = time.perf_counter()
    hypervolume(points, 0.0)
    assert time.perf_counter() - start < 6

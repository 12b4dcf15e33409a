"""What is known before a run: its scale, its reference point and its archive."""

from __future__ import annotations

import numpy as np
import pytest

from core.errors import UserError
from core.guidance.known import Known


def test_scale_and_archive_are_of_the_rows_that_have_values() -> None:
    known = Known.of([[0.0, 5.0], [2.0, 1.0], [1.0, 0.0], [np.nan, 99.0], [np.inf, 0.0]], ["a", "b", "c", "d", "e"])
    assert known.low.tolist() == [0.0, 0.0] and known.high.tolist() == [2.0, 5.0]
    assert sorted(known.archive.items) == ["a", "b"]
    assert known.scaled(np.array([[1.0, 10.0]])).tolist() == [[0.5, 2.0]]


def test_an_objective_that_never_differs_has_a_scale_all_the_same() -> None:
    known = Known.of([[3.0, 1.0], [3.0, 2.0]])
    assert known.scaled(np.array([[3.0, 2.0]])).tolist() == [[0.0, 1.0]] and known.archive.items == [1]


@pytest.mark.parametrize("table", [np.full((3, 2), np.nan), np.zeros((0, 2))])
def test_nothing_known_is_refused(table: np.ndarray) -> None:
    with pytest.raises(UserError, match=f"none of {len(table)} first sequences has a value under every objective"):
        Known.of(table)

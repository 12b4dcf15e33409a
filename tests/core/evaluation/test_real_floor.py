from collections.abc import Sequence

import numpy as np
import pytest

from core.evaluation.kmers import kmer_js
from core.evaluation.real_floor import real_floor

POOL = ["".join(row) for row in np.random.default_rng(0).choice(list("ACGT"), size=(600, 20))]
TRAIN, TEST = POOL[:200], POOL[200:]


def distance(part: Sequence[str]) -> dict[str, float]:
    return {"js": kmer_js(part, TRAIN, 3)}


def test_floor_falls_with_size_and_is_seeded() -> None:
    small, large = real_floor(distance, TEST, 20, seed=1), real_floor(distance, TEST, 300, seed=1)
    assert 0 < large["js"] < small["js"]
    assert small == real_floor(distance, TEST, 20, seed=1) != real_floor(distance, TEST, 20, seed=2)


def check_draws(n: int, count: int, size: int) -> None:
    """`count` draws of `size`, none of them sharing an object."""
    drawn: list[Sequence[int]] = []

    def measure(part: Sequence[int]) -> dict[str, float]:
        drawn.append(part)
        return {"mean": float(np.mean(part))}

    floor = real_floor(measure, list(range(10)), n, seed=0)
    assert [len(part) for part in drawn] == [size] * count
    assert len({value for part in drawn for value in part}) == count * size
    assert floor["mean"] == pytest.approx(np.mean([np.mean(part) for part in drawn]))


@pytest.mark.parametrize(("n", "count", "size"), [(1, 5, 1), (2, 5, 2), (3, 3, 3), (6, 1, 6), (10, 1, 10), (99, 1, 10)])
def test_draws_are_disjoint_and_of_equal_number(n: int, count: int, size: int) -> None:
    check_draws(n, count, size)


def test_a_planted_fault_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    class Repeats:
        def permutation(self, n: int) -> np.ndarray:
            return np.zeros(n, dtype=int)

    monkeypatch.setattr(np.random, "default_rng", lambda seed: Repeats())
    with pytest.raises(AssertionError):
        check_draws(3, 3, 3)


def test_nothing_real_gives_no_floor() -> None:
    assert real_floor(distance, [], 5, seed=0) == {} == real_floor(distance, TEST, 0, seed=0)

import math

import pytest
from rapidfuzz.distance import Levenshtein

from core.evaluation.diversity import mean_pairwise_distance


def test_every_pair_of_a_small_set() -> None:
    samples = ["AAAA", "AAAC", "", "GGGG"]
    pairs = [(a, b) for i, a in enumerate(samples) for b in samples[:i]]
    expected = sum(Levenshtein.distance(a, b) / max(len(a), len(b)) for a, b in pairs) / len(pairs)
    assert mean_pairwise_distance(samples, seed=0) == pytest.approx(expected, abs=1e-12)
    assert mean_pairwise_distance([[1, 2], [1, 3]], seed=0) == 0.5


def test_drawn_pairs_come_near_the_whole_and_never_pair_a_sample_with_itself() -> None:
    samples = [chr(97 + i % 26) * 4 for i in range(26)]
    assert mean_pairwise_distance(samples, seed=0, pairs=50) == 1.0
    mixed = ["AA", "AC", "CC"] * 40
    whole = mean_pairwise_distance(mixed, seed=0)
    drawn = mean_pairwise_distance(mixed, seed=3, pairs=5000)
    assert drawn == mean_pairwise_distance(mixed, seed=3, pairs=5000)
    assert drawn == pytest.approx(whole, abs=0.03)


def test_too_few_samples() -> None:
    assert math.isnan(mean_pairwise_distance([], seed=0)) and math.isnan(mean_pairwise_distance(["A"], seed=0))

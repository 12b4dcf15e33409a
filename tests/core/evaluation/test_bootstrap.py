import numpy as np
import pytest

from core.evaluation import bootstrap
from core.evaluation.bootstrap import Interval, bootstrap_ratio


def bootstrap_mean(values, generator: np.random.Generator, **options) -> Interval:
    return bootstrap_ratio(values, np.ones(len(values)), generator, **options)


def test_interval_of_a_mean_agrees_with_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    estimate, low, high = bootstrap_mean(values, np.random.default_rng(1), resamples=4000)
    error = values.std() / np.sqrt(len(values))
    assert estimate == pytest.approx(values.mean())
    assert low == pytest.approx(estimate - 1.96 * error, abs=0.2 * error)
    assert high == pytest.approx(estimate + 1.96 * error, abs=0.2 * error)


def test_coverage() -> None:
    generator = np.random.default_rng(2)
    inside = 0
    for _ in range(300):
        _, low, high = bootstrap_mean(generator.normal(size=60), generator, resamples=400, level=0.9)
        inside += low <= 0 <= high
    # 4 sigma of a binomial around 0.9, and the percentile method's known small deficit.
    assert 0.81 <= inside / 300 <= 0.97


def test_ratio_is_of_sums_and_pairing_narrows() -> None:
    generator = np.random.default_rng(3)
    lengths = generator.integers(1, 30, size=200)
    nats = lengths * 2.5 + generator.normal(size=200)
    assert bootstrap_ratio(nats, lengths, generator).estimate == pytest.approx(nats.sum() / lengths.sum())
    a = generator.normal(0, 5, size=200)
    paired = bootstrap_mean((a + 0.3 + 0.1 * generator.normal(size=200)) - a, generator)
    assert 0 < paired.low < 0.3 < paired.high < 0.4


def test_seeded_and_independent_of_equal_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(50.0)
    whole = bootstrap_mean(values, np.random.default_rng(0))
    assert whole == bootstrap_mean(values, np.random.default_rng(0))
    monkeypatch.setattr(bootstrap, "_BLOCK", 1000)
    assert whole == bootstrap_mean(values, np.random.default_rng(0))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="non-empty"):
        bootstrap_mean([], np.random.default_rng(0))
    with pytest.raises(ValueError, match="pair up"):
        bootstrap_ratio([1.0, 2.0], [1.0], np.random.default_rng(0))
    with pytest.raises(ValueError, match="level"):
        bootstrap_mean([1.0], np.random.default_rng(0), level=1.0)

"""The law of lengths against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chisquare

from core.data.noise import Noise
from core.errors import UserError
from core.processes._length import LengthPrior
from core.processes.autoregressive import Autoregressive
from core.processes.mixture_flow import MixtureFlow
from core.tokenizers.base import Vocabulary


def definition(lengths: list[int], limit: int) -> list[float]:
    """Weights 1 2 3 2 1 around each length, what falls outside 1..limit lost, and 1 % of a uniform law."""
    mass = [0.0] * (limit + 1)
    for length in lengths:
        for away in range(-2, 3):
            if 1 <= length + away <= limit:
                mass[length + away] += 3 - abs(away)
    return [0.0, *(0.99 * m / sum(mass) + 0.01 / limit for m in mass[1:])]


@pytest.mark.parametrize("lengths,limit", [([4, 4, 7], 9), ([1, 9], 9), ([2], 2), ([1], 1), ([0, 3], 5)])
def test_histogram_is_smoothed_as_defined(lengths: list[int], limit: int) -> None:
    prior = LengthPrior(limit)
    prior.fit(torch.tensor(lengths))
    law = prior.log_probability.exp()
    assert law.tolist() == pytest.approx(definition(lengths, limit), abs=1e-12)
    assert float(law.sum()) == pytest.approx(1, abs=1e-12)


def test_before_any_data_every_length_is_as_likely() -> None:
    found = LengthPrior(4).nll(torch.tensor([0, 1, 4, 5]))
    assert found.tolist() == pytest.approx([math.inf, math.log(4), math.log(4), math.inf])


def test_nll_is_infinite_outside_and_minus_log_inside() -> None:
    prior = LengthPrior(9)
    prior.fit(torch.tensor([4, 4, 7]))
    law = definition([4, 4, 7], 9)
    wanted = [math.inf, *(-math.log(p) for p in law[1:]), math.inf, math.inf]
    assert prior.nll(torch.arange(12)).tolist() == pytest.approx(wanted)


def test_draws_follow_the_law_among_the_allowed() -> None:
    prior, draws = LengthPrior(9), 20_000
    prior.fit(torch.tensor([4, 4, 7]))
    found = prior.draw(Noise.start(0, torch.arange(draws)), (0, 3, 4, 8, 9, 10, 50))
    counts = torch.bincount(found, minlength=51)
    law = torch.tensor(definition([4, 4, 7], 9))[[3, 4, 8, 9]]
    assert int(counts.sum() - counts[[3, 4, 8, 9]].sum()) == 0
    assert chisquare(counts[[3, 4, 8, 9]].numpy(), (law / law.sum() * draws).numpy()).pvalue > 1e-5


@pytest.mark.parametrize("allowed", [(), (0,), (10, 11)])
def test_no_allowed_length_in_reach_is_refused(allowed: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"no allowed length lies within the model's 1\.\.9"):
        LengthPrior(9).draw(Noise.start(0, torch.arange(1)), allowed)


def test_a_length_above_the_limit_is_refused_with_both_remedies() -> None:
    for process in (Autoregressive(Vocabulary(3), limit=9), MixtureFlow(Vocabulary(3), limit=9)):
        process.fit(torch.tensor([1, 9]))
        with pytest.raises(UserError, match="has 10 tokens, above the model's 9: .*limit=10, .*max_length=9"):
            process.fit(torch.tensor([10, 2]))


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="limit 0: a sequence holds at least one token"):
        MixtureFlow(Vocabulary(3), limit=0)

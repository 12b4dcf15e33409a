"""The law of lengths against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import chisquare

from core.data.conditions import Column, Conditions
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


# --- classes ------------------------------------------------------------------------------

TWO = Conditions((Column("kind", ("long", "short")),))
ONE_HOTS = torch.tensor([[0.0, 1], [0, 1], [1, 0], [torch.nan, torch.nan]])


def test_a_class_mixes_its_own_histogram_with_that_over_all_as_defined() -> None:
    prior = LengthPrior(20, TWO)
    prior.fit(torch.tensor([4, 5, 15, 9]), ONE_HOTS)
    alone = [torch.tensor(definition(lengths, 20)) - 0.01 / 20 for lengths in ([15], [4, 5], [4, 5, 15, 9])]
    for row, own in enumerate((1, 2)):
        wanted = (own * alone[row] + 5 * alone[2]) / (own + 5) + 0.01 / 20
        assert prior.class_log_probability[row].exp()[1:].tolist() == pytest.approx(wanted[1:].tolist())
    assert prior.log_probability.exp().tolist() == pytest.approx(definition([4, 5, 15, 9], 20))


def test_lengths_without_conditions_serve_every_class() -> None:
    prior, plain = LengthPrior(9, TWO), LengthPrior(9)
    prior.fit(torch.tensor([4, 4, 7, 2]), ONE_HOTS)
    prior.fit(torch.tensor([4, 4, 7]))
    plain.fit(torch.tensor([4, 4, 7]))
    lengths = torch.tensor([4, 5, 6, 7])
    assert torch.allclose(prior.nll(lengths, ONE_HOTS), plain.nll(lengths), rtol=1e-12)


@pytest.mark.parametrize("conditions", [None, Conditions((Column("size"),))])
def test_without_classes_nothing_is_added(conditions: Conditions | None) -> None:
    prior, plain = LengthPrior(9, conditions), LengthPrior(9)
    for each in (prior, plain):
        each.fit(torch.tensor([4, 4, 7, 2]), torch.ones(4, 2))
    assert list(prior.state_dict()) == ["log_probability"]
    assert torch.equal(prior.log_probability, plain.log_probability)
    noise, condition = Noise.start(0, torch.arange(50)), torch.ones(50, 2)
    assert torch.equal(prior.draw(noise, (4, 5, 9), condition), plain.draw(noise, (4, 5, 9)))


def test_weights_from_before_classes_load_as_the_law_over_all() -> None:
    older, prior = LengthPrior(9), LengthPrior(9, TWO)
    older.fit(torch.tensor([4, 4, 7]))
    prior.fit(torch.tensor([1, 2, 2, 9]), ONE_HOTS)
    prior.load_state_dict(older.state_dict())
    lengths = torch.tensor([4, 5, 6, 7])
    assert torch.equal(prior.nll(lengths, ONE_HOTS), older.nll(lengths))
    assert list(older.state_dict()) == ["log_probability"]

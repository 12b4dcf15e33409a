"""Laws of the transition of numbers; each is shown to catch a planted fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import kstest, norm

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.guidance.constraint_set import ConstraintSet
from core.processes.transitions import drift
from core.processes.transitions.drift import Drift
from tests.laws.toy_drift import ToyDrift, velocity
from tests.laws.toy_faults import patched, replaced
from tests.laws.toy_kinds import DRAWS, VOCABULARY, fit
from tests.laws.toy_projections import Ball, Box, Mean

LEAST_P = 1e-5  # frozen


def points(proposals: int = 1, fixed: bool = False, **options: Any) -> tuple[ToyDrift, SequenceBatch]:
    process = ToyDrift(VOCABULARY, proposals=proposals, **options)
    row = torch.tensor([[[0.3, -1.0], [2.0, 0.1], [9.0, 9.0]]], dtype=torch.float64)
    held = torch.tensor([[[False, True], [False, False], [False, False]]]) if fixed else None
    return process, SequenceBatch(row, Layout.padded(torch.tensor([2]), 3), fixed=held)


def drift_steps_have_the_closed_form() -> None:
    process, row = points()
    batch = row.fork(DRAWS)
    step = process.transition(velocity, batch, 0.3, 0.7)
    after = step.draw(batch, Noise.start(1, torch.arange(DRAWS)), None, None).batch.tokens
    mean = row.tokens + 0.4 * velocity(row, torch.full((1, 3), 0.3, dtype=torch.float64))
    for place in range(2):
        for channel in range(2):
            law = norm(float(mean[0, place, channel]), (0.3 * 0.4) ** 0.5).cdf
            assert kstest(after[:, place, channel].numpy(), law).pvalue > LEAST_P
    assert bool((after[:, 2] == 9.0).all())
    assert abs(float(torch.corrcoef(after[:, :2].flatten(1).T).triu(1).abs().max())) < 5 / DRAWS**0.5


def drift_tilts_weigh_the_proposals() -> None:
    process, row = points(proposals=4)
    batch, noise = row.fork(DRAWS), Noise.start(5, torch.arange(DRAWS))
    step = process.transition(velocity, batch, 0.3, 0.7)
    tilt = torch.tensor([0.0, 1.0, -2.0, 0.5], dtype=torch.float64).expand(DRAWS, 4)
    for weights in (None, tilt):
        taken = step if weights is None else step.tilted(0.5 * weights).tilted(0.5 * weights)
        after = taken.draw(batch, noise, None, None).batch.tokens
        same = (step.candidates(batch, noise) == after[:, None]).flatten(2).all(-1)
        assert bool((same.sum(1) == 1).all())
        law = torch.zeros(4) if weights is None else weights[0]
        assert fit(dict(enumerate(law.softmax(0).tolist())), same.long().argmax(1).tolist()) > LEAST_P


def drift_of_many_proposals_has_the_tilted_kernel() -> None:
    """exp(b x) moves a normal of variance v by b v; with K proposals all but about 1 / K of it."""
    process, row = points(proposals=128)
    batch, noise = row.fork(1000), Noise.start(6, torch.arange(1000))
    step = process.transition(velocity, batch, 0.3, 0.7)
    slope, variance = 2.0, 0.3 * 0.4
    tilted = step.tilted(slope * step.candidates(batch, noise)[:, :, 0, 0])
    found = tilted.draw(batch, noise, None, None).batch.tokens[:, 0, 0]
    plain = row.tokens + 0.4 * velocity(row, torch.full((1, 3), 0.3, dtype=torch.float64))
    assert abs(float(found.mean() - plain[0, 0, 0]) - slope * variance) < 4 * (variance / 1000) ** 0.5 + 2 / 128
    assert 0.8 < float(found.var()) / variance < 1.2


def projected_steps_head_for_the_projected_point() -> None:
    process, row = points(location=10.0, unit=2.0)
    rules = ConstraintSet([Box(10.0, 11.0)], None, [2])
    noise, time = Noise.start(0, torch.arange(1)), torch.full((1, 3), 0.5, dtype=torch.float64)
    clean = row.tokens + 0.5 * velocity(row, time)
    goal = ((10 + 2 * clean).clamp(10.0, 11.0) - 10) / 2
    last = process.transition(velocity, row, 0.5, 1.0).draw(row, noise, rules, None).batch.tokens
    assert torch.allclose(last[:, :2], goal[:, :2], atol=1e-12) and bool((last[:, 2] == 9.0).all())
    step = replace(process.transition(velocity, row, 0.5, 0.75), scale=0.0)
    middle = step.draw(row, noise, rules, None).batch.tokens
    assert torch.allclose(middle[:, :2], (row.tokens + (goal - row.tokens) / 2)[:, :2], atol=1e-12)


def fixed_numbers_are_kept(items: tuple[Any, ...] = (Box(-1.0, 1.0), Mean(0.5))) -> None:
    process, row = points(fixed=True)
    rules = ConstraintSet(items, None, [2])
    for t, s in ((0.2, 0.6), (0.6, 1.0)):
        step = process.transition(velocity, row, t, s)
        for given in (None, rules):
            after = step.draw(row, Noise.start(0, torch.arange(1)), given, None).batch.tokens
            assert after[0, 0, 1] == -1.0 and bool((after[0, 2] == 9.0).all())
        assert not torch.equal(after[0, :2], row.tokens[0, :2])
    assert abs(float(after[0, :2].mean()) - 0.5) < 1e-7 and float(after[0, :2].abs().max()) < 1 + 1e-7


DRIFT_LAWS = (
    drift_steps_have_the_closed_form,
    drift_tilts_weigh_the_proposals,
    drift_of_many_proposals_has_the_tilted_kernel,
    projected_steps_head_for_the_projected_point,
    fixed_numbers_are_kept,
)


@pytest.mark.parametrize("law", DRIFT_LAWS)
def test_drift(law: Callable[[], None]) -> None:
    law()


def test_a_zero_tilt_draws_the_same_numbers() -> None:
    process, row = points(proposals=4)
    batch, noise = row.fork(100), Noise.start(5, torch.arange(100))
    step = process.transition(velocity, batch, 0.3, 0.7)
    after = step.tilted(torch.zeros(100, 4, dtype=torch.float64)).draw(batch, noise, None, None)
    assert torch.equal(after.batch.tokens, step.draw(batch, noise, None, None).batch.tokens)


def test_one_constraint_is_projected_onto_jointly() -> None:
    """A ball moves all numbers together: the point comes along the ray to the centre."""
    process, row = points()
    rules = ConstraintSet([Ball(1.0)], None, [2])
    time = torch.full((1, 3), 0.5, dtype=torch.float64)
    clean = (row.tokens + 0.5 * velocity(row, time))[:, :2]
    step = process.transition(velocity, row, 0.5, 1.0)
    last = step.draw(row, Noise.start(0, torch.arange(1)), rules, None).batch.tokens[:, :2]
    assert torch.allclose(last, clean / clean.norm(), atol=1e-12)


FAULTS = {
    "drift_scale_is_a_variance": (
        patched(Drift, "candidates", lambda found, self, batch, noise: found * self.scale),
        drift_steps_have_the_closed_form,
    ),
    "drift_shares_its_noise": (
        lambda patch: patch.setattr(
            Noise, "uniform", lambda self, sites, *a, true=Noise.uniform: true(self, 1, *a).expand(-1, sites)
        ),
        drift_steps_have_the_closed_form,
    ),
    "drift_tilt_dropped": (
        replaced(Drift, "tilted", lambda self, weights: self),
        drift_tilts_weigh_the_proposals,
    ),
    "drift_tilt_forgets_the_first": (
        replaced(Drift, "tilted", lambda self, weights: replace(self, log_weights=weights)),
        drift_tilts_weigh_the_proposals,
    ),
    "drift_takes_the_best": (
        replaced(drift, "draw", lambda law, uniform: law.argmax(-1)),
        drift_of_many_proposals_has_the_tilted_kernel,
    ),
    "drift_projects_in_model_units": (
        replaced(ConstraintSet, "project", lambda self, clean, *a: clean.clamp(0.0, 1.0)),
        projected_steps_head_for_the_projected_point,
    ),
    "drift_projects_what_is_fixed": (
        patched(ConstraintSet, "project", lambda found, *a: found + 1.0),
        fixed_numbers_are_kept,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law = FAULTS[name]
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()

"""The flow of numbers keeps its laws, and each is shown to catch planted faults."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.errors import UserError
from core.guidance.constraint_set import ConstraintSet
from core.processes import continuous_flow
from core.processes.base import Network
from core.processes.continuous_flow import ContinuousFlow
from core.processes.transitions import drift
from core.processes.transitions.drift import Drift
from pipelines.check import check
from tests.laws.continuous_flow_laws import (
    LAWS,
    constraints_are_obeyed,
    euler_is_of_first_and_heun_of_second_order,
    fixed_numbers_never_move,
    guided_steps_keep_their_order,
    heun_is_better_at_equal_calls,
    likelihood_is_the_density,
    likelihood_of_two_peaks,
    one_step_has_the_closed_form,
    rows_do_not_see_their_batch,
    samples_follow_the_data,
    the_loss_is_least_at_the_velocity,
    the_path_is_a_straight_line,
)
from tests.laws.toy_faults import patched, replaced


@pytest.mark.parametrize("law", LAWS)
def test_continuous_flow(law: Callable[[], None]) -> None:
    law()


# --- planted faults ---------------------------------------------------------------------


def _curved_path(patch: pytest.MonkeyPatch) -> None:
    true = ContinuousFlow._mixed
    patch.setattr(ContinuousFlow, "_mixed", lambda self, batch, time, source: true(self, batch, time.square(), source))


def _heun_forgets_the_time(patch: pytest.MonkeyPatch) -> None:
    """The second velocity is that of the old time, at the new place."""
    true = ContinuousFlow.transition

    def changed(self: ContinuousFlow, network: Network, batch: SequenceBatch, t: float, s: float) -> Drift:
        return replace(true(self, network, batch, t, s), ahead=true(self, network, batch, t, t).ahead)

    patch.setattr(ContinuousFlow, "transition", changed)


def _heun_stays(patch: pytest.MonkeyPatch) -> None:
    """The second velocity is that of the old place, at the new time."""
    true = ContinuousFlow.transition

    def changed(self: ContinuousFlow, network: Network, batch: SequenceBatch, t: float, s: float) -> Drift:
        step = true(self, network, batch, t, s)
        assert step.ahead is not None
        ahead = step.ahead
        return replace(step, ahead=lambda numbers: ahead(batch.tokens))

    patch.setattr(ContinuousFlow, "transition", changed)


def _units_forgotten(patch: pytest.MonkeyPatch) -> None:
    true = ContinuousFlow.transition
    patch.setattr(
        ContinuousFlow,
        "transition",
        lambda self, *a: replace(step := true(self, *a), velocity=step.velocity / self.unit),
    )


def _fixed_numbers_show_noise(patch: pytest.MonkeyPatch) -> None:
    true = ContinuousFlow.corrupt
    patch.setattr(ContinuousFlow, "corrupt", lambda self, batch, *a: true(self, replace(batch, fixed=None), *a))


def _length_is_free(patch: pytest.MonkeyPatch) -> None:
    true = ContinuousFlow.likelihood

    def changed(self: ContinuousFlow, network: Network, batch: SequenceBatch, *a):
        found = true(self, network, batch, *a)
        return replace(found, nll=found.nll - self.length_prior.nll(batch.layout.lengths))

    patch.setattr(ContinuousFlow, "likelihood", changed)


def _probes_are_ones(patch: pytest.MonkeyPatch) -> None:
    true = continuous_flow._signs
    patch.setattr(continuous_flow, "_signs", lambda batch, noise: [probe.abs() for probe in true(batch, noise)])


def _trace_of_the_first_channel(patch: pytest.MonkeyPatch) -> None:
    true = continuous_flow._units
    patch.setattr(continuous_flow, "_units", lambda batch: list(true(batch))[::2])


def _guided_steps_are_mixed(patch: pytest.MonkeyPatch) -> None:
    def changed(self: Drift, other: Drift, weight: float) -> Drift:
        assert self.ahead is not None
        ahead = self.ahead
        velocity = self.velocity + weight * (self.velocity - other.velocity)
        return replace(self, velocity=velocity, ahead=lambda x: ahead(x) + weight * (ahead(x) - other.velocity))

    patch.setattr(Drift, "away_from", changed)


def _exact_by_the_batch(patch: pytest.MonkeyPatch) -> None:
    """What is exact goes by the longest of a batch."""
    true = ContinuousFlow.likelihood

    def changed(self: ContinuousFlow, network: Network, batch: SequenceBatch, noise: Noise, points: int):
        patch.setattr(self, "limit", int(batch.layout.lengths.max()) * 16)
        return true(self, network, batch, noise, points)

    patch.setattr(ContinuousFlow, "likelihood", changed)


FAULTS = (
    (_curved_path, the_path_is_a_straight_line),
    (_curved_path, the_loss_is_least_at_the_velocity),
    (
        patched(ContinuousFlow, "_source", lambda found, self, *a: self.location + (found - self.location) * self.unit),
        the_path_is_a_straight_line,
    ),
    (
        patched(continuous_flow, "site_uniform", lambda found, batch, *a: found[:, :1].expand(found.shape)),
        the_path_is_a_straight_line,
    ),
    (_heun_forgets_the_time, euler_is_of_first_and_heun_of_second_order),
    (_heun_stays, euler_is_of_first_and_heun_of_second_order),
    (_heun_stays, heun_is_better_at_equal_calls),
    (_units_forgotten, one_step_has_the_closed_form),
    (_units_forgotten, samples_follow_the_data),
    (_fixed_numbers_show_noise, fixed_numbers_never_move),
    (patched(ConstraintSet, "project", lambda found, *a: found + 0.01), constraints_are_obeyed),
    (_guided_steps_are_mixed, guided_steps_keep_their_order),
    (_trace_of_the_first_channel, likelihood_is_the_density),
    (_length_is_free, likelihood_is_the_density),
    (_probes_are_ones, functools.partial(likelihood_is_the_density, limit=100)),
    (replaced(continuous_flow, "_STAGES", ((0.0, 1.0),)), likelihood_of_two_peaks),
    (patched(ContinuousFlow, "_slope", lambda found, *a: (found[0], -found[1])), likelihood_of_two_peaks),
    (_exact_by_the_batch, rows_do_not_see_their_batch),
    (patched(continuous_flow, "moving", lambda found, batch: found | True), rows_do_not_see_their_batch),
)


@pytest.mark.parametrize("fault,law", FAULTS)
def test_planted_faults_are_caught(fault, law, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()


def _sees_its_batch(patch: pytest.MonkeyPatch) -> None:
    true = ContinuousFlow._velocity
    patch.setattr(ContinuousFlow, "_velocity", lambda self, *a: (found := true(self, *a)) + 0.01 * found.mean())


@pytest.mark.parametrize(
    "fault,law",
    [
        (patched(ContinuousFlow, "_slope", lambda found, *a: (found[0], -found[1])), "as often as their density says"),
        (_sees_its_batch, "a likelihood does not depend on the batch"),
        (replaced(drift, "moving", lambda batch: batch.tokens == batch.tokens), "fixed sites never move"),
    ],
)
def test_the_short_laws_catch_faults(fault, law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    with pytest.raises(UserError, match=f"law broken: .*{law}"):
        list(check("continuous_flow"))

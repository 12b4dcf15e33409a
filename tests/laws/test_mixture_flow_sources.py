"""Laws of every source of a mixture path, and of the corrector, against enumeration; each with planted faults."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.stepwise import Stepwise
from core.processes import _mixture_path, mixture_flow
from core.processes._source import MaskSource, PairedSource, TokenSource
from core.processes.mixture_flow import MixtureFlow
from core.processes.schedules import registry as schedules
from tests.laws.toy_faults import patched
from tests.laws.toy_kinds import accepts, constraints, fit
from tests.laws.toy_sources import CERTAIN, SOURCES, VOCABULARY, SourceToy, rows_of

DRAWS, STEPS, LEAST_P = 20_000, 4, 1e-5  # frozen
CORRECTORS = (0.0, 1.0, 5.0)


# --- 4.1: expected bound = entropy where x0 is certain, else loose and least at the posterior ---


def bound_is_the_entropy(name: str) -> None:
    toy = SourceToy(name)
    assert abs(toy.expected_bound(points=40) - toy.entropy) < 1e-9
    assert name == "mask" or toy.expected_bound(lambda *asked: leaving(toy, *asked), 20) > toy.entropy + 1e-3


def leaving(toy: SourceToy, batch: SequenceBatch, time: Tensor | None) -> Tensor:
    """The posterior with too little at the present token."""
    return toy.network(batch, time).scatter_add(
        -1, batch.tokens[..., None], -torch.ones(*batch.tokens.shape, 1).double()
    )


def bound_is_loose_and_least_at_the_posterior(name: str) -> None:
    toy = SourceToy(name)
    best = toy.expected_bound(points=20)
    assert best > toy.entropy + 0.1
    for seed in range(2):
        noise = 0.03 * torch.randn(3, generator=torch.Generator().manual_seed(seed)).double()
        assert toy.expected_bound(lambda batch, time, n=noise: toy.network(batch, time) + n, 20) > best


def test_the_bound_is_the_entropy_or_loose() -> None:
    for name in SOURCES:
        (bound_is_the_entropy if name in CERTAIN else bound_is_loose_and_least_at_the_posterior)(name)


@pytest.mark.parametrize("name", SOURCES)
def test_loss_and_likelihood_estimate_the_bound(name: str) -> None:
    loss_and_likelihood_estimate_the_bound(name)


def loss_and_likelihood_estimate_the_bound(name: str) -> None:
    toy, repeats = SourceToy(name, seed=4), 400
    rows = toy.sequences.repeat(repeats, 1)
    noise, batch = Noise.start(5, torch.arange(len(rows))), toy.batch(rows)
    toy.process.length_prior.fit(torch.full((10,), 2))
    wanted = toy.expected_bound(points=20)
    loss = toy.process.loss(toy.network, batch, noise)
    length = float(toy.process.length_prior.nll(torch.tensor([2])))
    given = 0.0 if name == "coupled" else length
    for values, more in ((loss.values.sum(1), 0.0), (toy.process.likelihood(toy.network, batch, noise, 8).nll, given)):
        each = values.double().reshape(repeats, -1)
        error = float((toy.q.square() * each.var(0) / repeats).sum().sqrt())
        assert abs(float(each.mean(0) @ toy.q) - wanted - more) < 4 * error


# --- 4.3: Kolmogorov equation, with and without the corrector ---------------------------


def generator(toy: SourceToy, t: float, corrector: float) -> Tensor:
    """u + c (u - backward), c = corrector kappa, with the source itself for the posterior of x0."""
    kappa = toy.kappa(t)
    slope = float(toy.process.schedule.derivative(torch.tensor(t, dtype=torch.float64)))
    time = torch.full(toy.states.shape, kappa, dtype=torch.float64)
    posterior = toy.network(toy.batch(toy.states), time if toy.process.timed else None).exp()
    rates = torch.zeros(len(toy.states), len(toy.states), dtype=torch.float64)
    for place in range(toy.length):
        shown = toy.states[:, place]
        final = toy.law[place, shown] == 0
        site = corrector * slope * toy.law[place].expand(len(shown), -1).clone()
        forward = torch.where(final, 0.0, (1 + corrector * kappa) * slope / (1 - kappa))
        site[:, : posterior.shape[-1]] += forward[:, None] * posterior[:, place]
        site[torch.arange(len(shown)), shown] -= site.sum(1)
        others = [n for n in range(toy.length) if n != place]
        alike = (toy.states[:, None, others] == toy.states[None, :, others]).all(-1)
        rates += alike * site[:, shown]
    return rates


def behind(toy: SourceToy, t: float, s: float, corrector: float) -> float:
    """The time at which the process says that the sequences stand after the way back."""
    return toy.process.renoise(toy.batch(toy.states[:1]), t, s, corrector, Noise.start(0, torch.arange(1)))[1]


def rates_solve_the_kolmogorov_equation(name: str, corrector: float, schedule: str = "polynomial") -> None:
    toy = SourceToy(name, schedule=schedules.get(schedule)())
    width = 1e-5
    widths = (width, width / 2)
    for t in (0.2, 0.5, 0.9):
        now = toy.marginal(toy.kappa(t))
        slope = (toy.marginal(toy.kappa(t + width)) - toy.marginal(toy.kappa(t - width))) / (2 * width)
        moved = [(now @ toy.step(t, t + h, corrector, behind(toy, t, t + h, corrector)) - now) / h for h in widths]
        # Two widths, so that the error goes as the square of the width.
        assert float((2 * moved[1] - moved[0] - slope).abs().max()) < 1e-6
        assert float((now @ generator(toy, t, corrector) - slope).abs().max()) < 1e-6
    # Finite at the beginning of time.
    first = toy.step(0.0, 0.1, corrector, behind(toy, 0.0, 0.1, corrector))
    assert bool(first.isfinite().all()) and torch.allclose(first.sum(1), torch.ones(len(first)).double())


@pytest.mark.parametrize("corrector", CORRECTORS)
@pytest.mark.parametrize("name", SOURCES)
def test_rates_solve_the_kolmogorov_equation(name: str, corrector: float) -> None:
    rates_solve_the_kolmogorov_equation(name, corrector)


@pytest.mark.parametrize("schedule", schedules.keys())
def test_rates_of_the_corrector_follow_the_schedule(schedule: str) -> None:
    for name in ("mask", "given"):
        rates_solve_the_kolmogorov_equation(name, 5.0, schedule)


# --- 4.4: kernels by chi-square ---------------------------------------------------------


def draws_follow_the_kernel(name: str, corrector: float = 3.0) -> None:
    """The start, the way back and one step forward, each from one state."""
    toy = SourceToy(name)
    noise = Noise.start(7, torch.arange(DRAWS))
    assert fit(start_law(toy), rows_of(toy.start(DRAWS, noise))) > LEAST_P
    for state in ([2, 1], [1, 1]):
        index = int((toy.states == torch.tensor(state)).all(1).nonzero()[0, 0])
        batch = toy.batch(torch.tensor([state]).expand(DRAWS, -1))
        t, s = 0.5, 0.8
        back, earlier = toy.process.renoise(batch, t, s, corrector, noise)
        lost = 1 - float(torch.exp(torch.tensor(-corrector * (toy.kappa(s) - toy.kappa(t)), dtype=torch.float64)))
        assert abs(toy.kappa(earlier) - toy.kappa(t) * (1 - lost)) < 1e-9
        assert fit(toy.table(toy.backward(lost)[index]), rows_of(back)) > LEAST_P
        move = toy.process.transition(toy.network, batch, t, s).draw(batch, noise, None, None)
        assert fit(toy.table(toy.forward(t, s)[index]), rows_of(move.batch)) > LEAST_P


def start_law(toy: SourceToy) -> dict[Any, float]:
    return toy.table(toy.law[torch.arange(toy.length), toy.states].prod(-1))


@pytest.mark.parametrize("name", SOURCES)
def test_draws_follow_the_kernel(name: str) -> None:
    draws_follow_the_kernel(name)


def test_the_forward_kernel_is_the_closed_form() -> None:
    """Sites that x0 may still show jump with (kappa_s - kappa_t) / (1 - kappa_t), to the posterior."""
    for name in SOURCES:
        toy = SourceToy(name)
        time = torch.full(toy.states.shape, 0.5, dtype=torch.float64)
        posterior = toy.network(toy.batch(toy.states), time if toy.process.timed else None).exp()
        jump = (toy.law[torch.arange(2), toy.states] > 0).double() * (0.8 - 0.5) / (1 - 0.5)
        site = torch.zeros(*toy.states.shape, VOCABULARY.total, dtype=torch.float64)
        site[..., :3] = jump[..., None] * posterior
        site = site.scatter_add(-1, toy.states[..., None], (1 - jump)[..., None])
        assert torch.allclose(toy.forward(0.5, 0.8), toy.joined(site), atol=1e-12)


def what_x0_cannot_show_is_final(name: str) -> None:
    """SUBS: whatever the network says, such a site neither moves nor costs anything."""
    toy = SourceToy(name)
    final = toy.law[torch.arange(2), toy.states] == 0
    vote = lambda batch, time: torch.tensor([3.0, 1.0, 0.0]).double().expand(*batch.tokens.shape, 3)  # noqa: E731
    batch = toy.batch(toy.states)
    transition = toy.process.transition(vote, batch, 0.5, 1.0)
    assert torch.equal(transition.jump == 0, final)
    assert torch.equal(transition.settled, torch.where(final, toy.states, -1))
    kappa = torch.full(toy.states.shape, 0.5, dtype=torch.float64)
    value, _, counted = toy.process.integrand(vote, toy.batch(torch.zeros_like(toy.states)), batch, kappa)
    assert torch.equal(counted, ~final) and torch.equal(value != 0, ~final)


@pytest.mark.parametrize("name", SOURCES)
def test_what_x0_cannot_show_is_final(name: str) -> None:
    what_x0_cannot_show_is_final(name)


# --- 4.5, 4.7, 4.17: whole runs ---------------------------------------------------------


def runs_follow_the_definition(name: str, corrector: float) -> None:
    toy = SourceToy(name, seed=2)
    noise = Noise.start(11, torch.arange(DRAWS))
    samples = Stepwise(STEPS, corrector=corrector).sample(toy.process, toy.network, toy.start(DRAWS, noise), noise)
    rows = [tuple(row.tolist()) for row in samples.tokens]
    assert fit(toy.table(toy.propagated(STEPS, corrector)), rows) > LEAST_P


@pytest.mark.parametrize("corrector", [0.0, 2.0])
@pytest.mark.parametrize("name", SOURCES)
def test_runs_follow_the_definition(name: str, corrector: float) -> None:
    runs_follow_the_definition(name, corrector)


@pytest.mark.parametrize("corrector", [0.0, 2.0])
@pytest.mark.parametrize("name", SOURCES)
def test_runs_tend_to_the_data(name: str, corrector: float) -> None:
    """At the rate of 1 / steps."""
    toy = SourceToy(name, seed=1)
    gaps = [float((toy.propagated(n, corrector) - toy.marginal(1.0)).abs().sum() / 2) for n in (8, 16, 32)]
    assert 1.5 < gaps[0] / gaps[1] < 2.6 and 1.5 < gaps[1] / gaps[2] < 2.6


def corrector_keeps_the_law(name: str, t: float = 0.6) -> None:
    """4.7: from p_t, back and forth to the same t: p_t at once for one site, and as 1 / moves for several."""
    alone = SourceToy(name, length=1)
    law = alone.marginal(alone.kappa(t))
    rows = alone.states[torch.multinomial(law, DRAWS, True, generator=torch.Generator().manual_seed(3))]
    batch, noise = alone.batch(rows), Noise.start(5, torch.arange(DRAWS))
    for move in range(3):
        here = noise.at(move)
        batch, earlier = alone.process.renoise(batch, t, t + 0.3, 2.0, here)
        transition = alone.process.transition(alone.network, batch, earlier, t)
        batch = transition.draw(batch, here, None, None).batch
    assert fit(alone.table(law), rows_of(batch)) > LEAST_P
    toy, gaps = SourceToy(name), []
    law = toy.marginal(toy.kappa(t))
    for moves in (16, 32):
        lost = -float(torch.expm1(torch.tensor(-2.0 / moves, dtype=torch.float64)))
        now, earlier = law, t * (1 - lost)
        for _ in range(moves):
            now = now @ toy.backward(lost) @ toy.forward(earlier, t)
        gaps.append(float((now - law).abs().sum() / 2))
    assert gaps[0] < 0.05 and 1.7 < gaps[0] / gaps[1] < 2.3


@pytest.mark.parametrize("name", SOURCES)
def test_corrector_keeps_the_law(name: str) -> None:
    corrector_keeps_the_law(name)


def fixed_sites_never_move(name: str) -> None:
    toy = SourceToy(name, seed=3)
    noise = Noise.start(1, torch.arange(2000))
    start = toy.start(2000, noise)
    fixed = torch.tensor([True, False]).expand(2000, -1)
    held = replace(start, tokens=torch.where(fixed, 0, start.tokens), fixed=fixed)
    samples = Stepwise(STEPS, corrector=5.0).sample(toy.process, toy.network, held, noise)
    assert all(int(row[0]) == 0 for row in samples.tokens)
    assert len({int(row[1]) for row in samples.tokens}) == 3
    loss = toy.process.loss(toy.network, replace(held, tokens=torch.stack(samples.tokens)), noise)
    assert not loss.values[:, 0].any() and bool(loss.values[:, 1].any())


@pytest.mark.parametrize("name", SOURCES)
def test_fixed_sites_never_move(name: str) -> None:
    fixed_sites_never_move(name)


def corrected_rows_stand_alone_and_resume(name: str) -> None:
    toy, rules = SourceToy(name, length=3), constraints("forbid:AB", "contains:C")
    noise, sampler = Noise.start(2, torch.arange(64)), Stepwise(6, trajectory=True, corrector=3.0)
    start = toy.start(64, noise)
    for held in (None, rules):
        whole = sampler.sample(toy.process, toy.network, start, noise, held)
        some = torch.tensor([40, 7])
        alone = sampler.sample(toy.process, toy.network, start.select(some), noise.select(some), held)
        assert [row.tolist() for row in alone.tokens] == [whole.tokens[n].tolist() for n in (40, 7)]
        rest = sampler.sample(toy.process, toy.network, whole.trajectory[2], noise, held, first=3)
        assert torch.equal(torch.stack(rest.tokens), torch.stack(whole.tokens))
    assert all(accepts(rules, row.tolist()) for row in whole.tokens)


@pytest.mark.parametrize("name", SOURCES)
def test_corrected_rows_stand_alone_and_resume(name: str) -> None:
    corrected_rows_stand_alone_and_resume(name)


# --- planted faults ---------------------------------------------------------------------


def _uniform_instead(patch: pytest.MonkeyPatch) -> None:
    even = lambda law, self: torch.where(self.support, torch.ones_like(law), 0.0)  # noqa: E731
    patched(TokenSource, "laws", even)(patch)


def _nothing_is_final(source: type) -> Callable[[pytest.MonkeyPatch], None]:
    return patched(source, "possible", lambda found, self, batch: torch.ones_like(found))


def _value_at_the_present_token_lost(patch: pytest.MonkeyPatch) -> None:
    """What flows out of a site is forgotten: the cross-entropy alone."""
    true = MixtureFlow.integrand

    def changed(self: MixtureFlow, network: Any, clean: SequenceBatch, noisy: SequenceBatch, kappa: Tensor) -> Any:
        _, cross_entropy, counted = true(self, network, clean, noisy, kappa)
        return torch.where(clean.tokens == noisy.tokens, 0.0, cross_entropy) / (1 - kappa), cross_entropy, counted

    patch.setattr(MixtureFlow, "integrand", changed)


def _far_too_far_back(patch: pytest.MonkeyPatch) -> None:
    true = MixtureFlow.renoise
    patch.setattr(MixtureFlow, "renoise", lambda self, b, t, s, c, n: true(self, b, t, s, 1.2 * c, n))


def _time_stands_still(patch: pytest.MonkeyPatch) -> None:
    true = MixtureFlow.renoise
    patch.setattr(MixtureFlow, "renoise", lambda self, b, t, *rest: (true(self, b, t, *rest)[0], t))


def _fixed_sites_too(patch: pytest.MonkeyPatch) -> None:
    everything = lambda found, batch: batch.layout.valid  # noqa: E731
    patched(_mixture_path, "moving", everything)(patch)
    patched(mixture_flow, "moving", everything)(patch)


def _steps_counted_from_the_start(patch: pytest.MonkeyPatch) -> None:
    true, calls = Noise.at, itertools.count()
    patch.setattr(Noise, "at", lambda self, steps: true(self, next(calls)))


def _length_paid_for(patch: pytest.MonkeyPatch) -> None:
    true = MixtureFlow.likelihood

    def dearer(self: MixtureFlow, *arguments: Any) -> Any:
        found = true(self, *arguments)
        return replace(found, nll=found.nll + 0.5)

    patch.setattr(MixtureFlow, "likelihood", dearer)


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = {
    "half_the_bound": (_value_at_the_present_token_lost, lambda: bound_is_the_entropy("coupled")),
    "half_the_bound_of_a_law": (
        _value_at_the_present_token_lost,
        lambda: bound_is_loose_and_least_at_the_posterior("given"),
    ),
    "nothing_final_mask": (_nothing_is_final(MaskSource), lambda: what_x0_cannot_show_is_final("mask")),
    "nothing_final_given": (_nothing_is_final(TokenSource), lambda: what_x0_cannot_show_is_final("given")),
    "nothing_final_coupled": (_nothing_is_final(PairedSource), lambda: what_x0_cannot_show_is_final("coupled")),
    "start_from_another_law": (_uniform_instead, lambda: draws_follow_the_kernel("marginal")),
    "back_too_far": (_far_too_far_back, lambda: draws_follow_the_kernel("mask")),
    "back_without_time": (_time_stands_still, lambda: rates_solve_the_kolmogorov_equation("given", 1.0)),
    "back_without_time_at_length": (_time_stands_still, lambda: corrector_keeps_the_law("mask")),
    "runs_without_time": (_time_stands_still, lambda: runs_follow_the_definition("uniform", 2.0)),
    "fixed_redrawn": (_fixed_sites_too, lambda: fixed_sites_never_move("mask")),
    "noise_counts_calls": (_steps_counted_from_the_start, lambda: corrected_rows_stand_alone_and_resume("mask")),
    "length_paid_for": (_length_paid_for, lambda: loss_and_likelihood_estimate_the_bound("coupled")),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law = FAULTS[name]
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()

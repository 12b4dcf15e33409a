"""Laws of the flow of numbers, against closed forms: each raises AssertionError where it is broken."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import torch
from scipy.stats import kstest
from torch import Tensor

from core.backbones.backbone import Backbone
from core.backbones.network import BackboneNetwork
from core.data.layout import Layout
from core.data.noise import Noise
from core.data.packing import pack, packed_layout, unpack
from core.data.sequence_batch import SequenceBatch
from core.decoding.base import Samples
from core.decoding.stepwise import Stepwise
from core.guidance.constraint_set import ConstraintSet
from core.guidance.guides.base import GuideContext
from core.guidance.guides.classifier_free import ClassifierFree
from core.guidance.objectives.base import Scoreboard
from core.processes.base import Network
from core.processes.continuous_flow import ContinuousFlow
from tests.laws import toy_drift
from tests.laws.toy_numbers import LENGTHS, LOCATION, UNIT, Chain, TwoPeaks, numbers_of, process_of
from tests.laws.toy_projections import Box, Mean

LEAST_P, DRAWS = 1e-5, 4000  # frozen


def standard(numbers: Tensor) -> Tensor:
    return (numbers - LOCATION[: numbers.shape[-1]]) / UNIT[: numbers.shape[-1]]


def begun(process: ContinuousFlow, ids: Tensor, length: int = 2) -> tuple[SequenceBatch, Noise]:
    noise = Noise.start(7, ids)
    return process.prior(torch.full_like(ids, length), noise), noise


def finished(process: ContinuousFlow, network: Network, steps: int, count: int = 500) -> tuple[Tensor, Tensor]:
    """Standardised noise, and what the sampler makes of it."""
    start, noise = begun(process, torch.arange(count))
    samples = Stepwise(steps).sample(process, network, start, noise)
    return standard(start.tokens), standard(torch.stack(samples.tokens))


# --- path and loss ----------------------------------------------------------------------


def the_path_is_a_straight_line() -> None:
    """At each time x_t is normal about t x1 with deviation 1 - t, one draw of noise for all times."""
    process = process_of()
    noise, one = Noise.start(1, torch.arange(DRAWS)), torch.ones(DRAWS, 2).double()
    batch = numbers_of(torch.tensor([[[0.3, -1.0], [2.0, 0.1]]]).double().expand(DRAWS, 2, 2), torch.full((DRAWS,), 2))
    begin = process.corrupt(batch, 0 * one, noise).tokens
    for place in range(2):
        for channel in range(2):
            assert kstest(standard(begin)[:, place, channel].numpy(), "norm").pvalue > LEAST_P
    assert float(torch.corrcoef(begin.flatten(1).T).triu(1).abs().max()) < 5 / DRAWS**0.5
    for t in (0.25, 0.75, 1.0):
        found = process.corrupt(batch, t * one, noise)
        assert torch.allclose(found.tokens, (1 - t) * begin + t * batch.tokens, atol=1e-12)
        assert found.targets is batch.tokens


def the_loss_is_least_at_the_velocity() -> None:
    """At E[x1 - x0 | x_t] it is the variance that x_t leaves; any other answer adds its squared distance."""
    process, count = process_of(), 40_000
    lengths = torch.full((count,), 2)
    normal = torch.randn(count, 2, 2, generator=torch.Generator().manual_seed(3)).double()
    batch = numbers_of(toy_drift.MEAN + toy_drift.SPREAD * normal, lengths)
    noise = Noise.start(2, torch.arange(count))
    best = process.loss(toy_drift.velocity, batch, noise)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    times, spread = (nodes + 1) / 2, toy_drift.SPREAD**2
    wanted = float((weights / 2 * spread / (times**2 * spread + (1 - times) ** 2)).sum())
    error = float(best.values.mean(1).std()) / count**0.5
    assert int(best.count) == 2 * count and abs(float(best.mean()) - wanted) < 4 * error
    for change in (
        lambda numbers, t: 0.2 * numbers,
        lambda numbers, t: 0.3 * t.expand(numbers.shape),
        lambda numbers, t: -0.2 * torch.sin(numbers).flip(-1),
    ):
        away: list[Tensor] = []

        def other(batch: SequenceBatch, time: Tensor | None, change=change, away=away) -> Tensor:
            assert time is not None
            away.append(change(batch.tokens, time[..., None]))
            return toy_drift.velocity(batch, time) + away[0]

        more = process.loss(other, batch, noise).values - best.values
        added = away[0].square().mean(-1)
        assert float(added.mean()) > 0.01
        gap = (more - added).mean(1)
        assert abs(float(gap.mean())) < 4 * float(gap.std()) / count**0.5


# --- sampling ---------------------------------------------------------------------------


def errors(integrator: str, steps: tuple[int, ...]) -> list[float]:
    """Distance of the sampler's end from the exact flow's, root mean square."""
    chain, found = Chain(), []
    for count in steps:
        begin, end = finished(process_of(integrator=integrator), chain, count, 200)
        found.append(float((end - chain.flow(begin, 2)).square().mean().sqrt()))
    return found


def euler_is_of_first_and_heun_of_second_order() -> None:
    for integrator, low, high in (("euler", 1.8, 2.2), ("heun", 3.5, 4.5)):
        coarse, fine = errors(integrator, (32, 64))
        assert low < coarse / fine < high


def heun_is_better_at_equal_calls() -> None:
    for calls in (8, 16, 64):
        assert errors("heun", (calls // 2,))[0] < 0.5 * errors("euler", (calls,))[0]


def samples_follow_the_data() -> None:
    process, peaks = process_of(1), TwoPeaks()
    start, noise = begun(process, torch.arange(DRAWS), 1)
    rows = Stepwise(64).sample(process, peaks, start, noise)
    assert rows.network_calls == 128 and rows.network_rows == 128 * DRAWS
    drawn = torch.stack(rows.tokens).flatten().numpy()
    assert kstest(drawn, lambda x: peaks.cdf(torch.as_tensor(x)).numpy()).pvalue > LEAST_P


def one_step_has_the_closed_form() -> None:
    """Euler's step from the drift toy: x + (s - t) v in data units, whatever they are."""
    process = process_of(integrator="euler")
    batch = numbers_of(torch.tensor([[[0.3, -1.0], [2.0, 0.1]]]).double(), torch.tensor([2]))
    noise, time = Noise.start(0, torch.arange(1)), torch.full((1, 2), 0.3).double()
    at = replace(batch, tokens=standard(batch.tokens))
    after = process.transition(toy_drift.velocity, batch, 0.3, 0.7).draw(batch, noise, None, None).batch.tokens
    assert torch.allclose(standard(after), at.tokens + 0.4 * toy_drift.velocity(at, time), atol=1e-12)
    process = process_of()
    there = replace(at, tokens=at.tokens + 0.4 * toy_drift.velocity(at, time))
    mean = (toy_drift.velocity(at, time) + toy_drift.velocity(there, time + 0.4)) / 2
    after = process.transition(toy_drift.velocity, batch, 0.3, 0.7).draw(batch, noise, None, None).batch.tokens
    assert torch.allclose(standard(after), at.tokens + 0.4 * mean, atol=1e-12)


def fixed_numbers_never_move() -> None:
    """They stay to the last bit, the network sees them, and a place that is fixed as a whole is at time 1."""
    for integrator in ("euler", "heun"):
        process = process_of(integrator=integrator)
        start, noise = begun(process, torch.arange(50))
        held = torch.tensor([[[True, True], [False, True]]]).expand(50, 2, 2)
        batch = replace(start, tokens=torch.where(held, 5.0, start.tokens), fixed=held)
        seen: list[tuple[Tensor, Tensor]] = []

        def network(batch: SequenceBatch, time: Tensor | None, seen=seen) -> Tensor:
            assert time is not None
            seen.append((batch.tokens, time))
            return toy_drift.velocity(batch, time)

        rules = ConstraintSet([Box(-4.0, 12.0)], None, [2])
        for given in (None, rules):
            rows = torch.stack(Stepwise(4).sample(process, network, batch, noise, given).tokens)
            assert bool((rows[held] == 5.0).all()) and not bool((rows[~held] == batch.tokens[~held]).any())
        wanted = standard(torch.full((50, 2, 2), 5.0).double())
        for numbers, time in seen:
            assert torch.equal(numbers[held], wanted[held])
            assert bool((time[:, 0] == 1).all()) and bool((time[:, 1] == time[0, 1]).all())
        noisy = process.corrupt(batch, torch.full((50, 2), 0.5).double(), noise.at(9)).tokens
        assert torch.equal(noisy[held], batch.tokens[held]) and not torch.equal(noisy[~held], batch.tokens[~held])
        loss = process.loss(network, batch, noise)
        assert int(loss.count) == 50 and bool((loss.weights[:, 0] == 0).all())


def constraints_are_obeyed() -> None:
    rules = [Box(-4.0, 12.0), Mean(3.0)]
    for integrator in ("euler", "heun"):
        process = process_of(integrator=integrator)
        noise = Noise.start(7, torch.arange(40))
        start = process.prior(noise.sequences % 3 + 1, noise)
        rows = Stepwise(3).sample(process, Chain(), start, noise, ConstraintSet(rules, None, LENGTHS)).tokens
        assert all(rule.check(row) for rule in rules for row in rows)
        assert any(
            not rule.check(row) for rule in rules for row in Stepwise(3).sample(process, Chain(), start, noise).tokens
        )


def guided_steps_keep_their_order() -> None:
    """Away from another velocity: Heun's method on the mixed velocity, not a mix of Heun's steps."""
    process, weight = process_of(), 1.5

    def network(batch: SequenceBatch, time: Tensor | None) -> Tensor:
        assert batch.condition is not None
        plain = Chain()(batch, time)
        known = ~batch.condition.isnan().any(-1)
        return torch.where(known[:, None, None], plain, 0.3 * batch.tokens)

    def mixed(batch: SequenceBatch, time: Tensor | None) -> Tensor:
        said = Chain()(batch, time)
        return said + weight * (said - 0.3 * batch.tokens)

    start, noise = begun(process, torch.arange(20))
    start = replace(start, condition=torch.ones(20, 1).double())
    context = lambda model, noise: GuideContext(model, lambda rows: [], noise, Scoreboard([]))  # noqa: E731
    guided = Stepwise(5, [ClassifierFree(weight)], context).sample(process, network, start, noise)
    plain = Stepwise(5).sample(process, mixed, start, noise)
    assert torch.allclose(torch.stack(guided.tokens), torch.stack(plain.tokens), atol=1e-10)
    assert guided.network_calls == 2 * plain.network_calls == 20


# --- likelihood -------------------------------------------------------------------------


def likelihood_is_the_density(limit: int = 3) -> None:
    """Exact trace for three places of two channels; with a longer limit two random probes."""
    process, chain = process_of(limit=limit), Chain()
    for length in LENGTHS:
        rows = torch.nn.functional.pad(chain.draw(30, length, seed=length), (0, 0, 0, 3 - length), value=7.0)
        lengths = torch.full((30,), length)
        batch, noise = numbers_of(rows, lengths), Noise.start(4, torch.arange(30))
        found = process.likelihood(chain, batch, noise, 240)
        away = found.nll - chain.nll(rows, length) - process.length_prior.nll(lengths)
        assert found.kind == "estimate" and found.tokens.tolist() == [length + 1] * 30
        if limit == 3:
            assert float(away.abs().max()) < 1e-5 and bool((away.abs() <= found.error + 1e-12).all())
            coarse = process.likelihood(chain, batch, noise, 48)
            wrong = (coarse.nll - found.nll).abs()
            assert bool((wrong <= coarse.error).all()) and float(coarse.error.max()) < 0.1
        else:
            # Each row's error is that of two probes, so it is only known on the whole.
            scatter = float(away.square().mean().sqrt())
            assert abs(float(away.mean())) < 4 * scatter / 30**0.5
            assert length == 1 or 0.02 < scatter < 3 * float(found.error.square().mean().sqrt())


def likelihood_of_two_peaks() -> None:
    process, peaks = process_of(1), TwoPeaks()
    rows = torch.linspace(-2, 2, 41).double()
    batch = numbers_of(rows[:, None, None], torch.ones(41, dtype=torch.long))
    found = process.likelihood(peaks, batch, Noise.start(0, torch.arange(41)), 480)
    wanted = peaks.nll(rows) + process.length_prior.nll(torch.ones(41, dtype=torch.long))
    assert float((found.nll - wanted).abs().max()) < 1e-4
    # Where both step sizes happen to agree the error of one row is too small.
    assert float((found.nll - wanted).abs().mean()) < float(found.error.mean())


def likelihood_given_fixed_numbers() -> None:
    """The flow of the free numbers alone: here these are independent, so their own density is left."""
    process = process_of()
    rows = torch.tensor([[[0.3, -1.0], [2.0, 0.1]]]).double()
    held = torch.tensor([[[False, True], [False, False]]])
    noise, lengths = Noise.start(0, torch.arange(1)), torch.tensor([2])
    law = torch.distributions.Normal(toy_drift.MEAN, toy_drift.SPREAD)
    each = -law.log_prob(rows) + UNIT.log()
    for fixed, wanted in ((None, each.sum()), (held, each[~held].sum())):
        found = process.likelihood(toy_drift.velocity, numbers_of(rows, lengths, fixed), noise, 480).nll
        assert abs(float(found - process.length_prior.nll(lengths)) - float(wanted)) < 1e-6


# --- whatever the batch -----------------------------------------------------------------


@functools.cache
def real_network(packed: bool = False, channels: int = 2) -> BackboneNetwork:
    torch.manual_seed(0)
    process = process_of(channels)
    pattern = [{"name": "attention", "heads": 2}, {"name": "bidirectional", "mixer": {"name": "min_gru"}}]
    backbone = Backbone(0, process.outputs, 16, pattern, 2, process.attends, time=process.timed)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return BackboneNetwork(backbone.double().eval(), packed)


def some_batch(ids: Tensor, wide: int = 0) -> tuple[SequenceBatch, Noise]:
    """Lengths and numbers go by the sequence's id; `wide` columns of padding hold 99."""
    rows = torch.stack([Chain().draw(1, 3, seed=int(n))[0] for n in ids])
    return numbers_of(torch.nn.functional.pad(rows, (0, 0, 0, wide)), ids % 3 + 1), Noise.start(3, ids)


def run(ids: Tensor, wide: int = 0, **options) -> Samples:
    process, noise = process_of(), Noise.start(3, ids)
    start = process.prior(ids % 3 + 1, noise)
    width = int(start.layout.shape[1]) + wide
    tokens = torch.nn.functional.pad(start.tokens, (0, 0, 0, wide), value=99.0)
    start = replace(start, tokens=tokens, layout=Layout.padded(start.layout.lengths, width))
    with torch.no_grad():
        return Stepwise(4, **options).sample(process, real_network(), start, noise)


def near(ones: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> bool:
    pairs = zip(ones, others, strict=True)
    return all(one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=1e-10) for one, other in pairs)


def rows_do_not_see_their_batch() -> None:
    """Alone or together, wider or narrower: samples, loss and likelihood, exact or by probes."""
    ids = torch.arange(8)
    together = run(ids).tokens
    assert near(run(ids, wide=3).tokens, together)
    for n in (0, 5):
        assert near(run(ids[n : n + 1]).tokens, together[n : n + 1])
    for limit in (3, 100):
        process, (batch, noise) = process_of(limit=limit), some_batch(ids)
        whole = process.likelihood(real_network(), batch, noise, 12)
        wider = process.likelihood(real_network(), some_batch(ids, 2)[0], noise, 12)
        few = torch.tensor([7, 3, 0])
        part = process.likelihood(real_network(), batch.select(few), noise.select(few), 12)
        assert near((wider.nll, part.nll), (whole.nll, whole.nll[few]))
        assert near((wider.error, part.error), (whole.error, whole.error[few]))
        loss, more = (process.loss(real_network(), some_batch(ids, wide)[0], noise) for wide in (0, 2))
        assert near((more.values[:, :3], more.mean()), (loss.values, loss.mean()))


def packed_is_padded() -> None:
    ids = torch.arange(9)
    batch, noise = some_batch(ids)
    width = int(batch.layout.lengths.sum()) + 2
    dense = replace(batch, tokens=pack(batch.tokens, batch.layout, width), layout=packed_layout(batch.layout, width))
    for limit in (3, 100):
        process = process_of(limit=limit)
        loss = [process.loss(real_network(), b, noise) for b in (batch, dense)]
        spread = unpack(loss[1].values, dense.layout, 3)
        assert near((spread, loss[1].mean()), (loss[0].values, loss[0].mean()))
        nll = [process.likelihood(real_network(), b, noise, 12) for b in (batch, dense)]
        assert near((nll[1].nll, nll[1].error), (nll[0].nll, nll[0].error))
    process = process_of()
    start, noise = begun(process, ids)
    plain, thrifty = (Stepwise(3).sample(process, real_network(packed), start, noise) for packed in (False, True))
    assert near(plain.tokens, thrifty.tokens)


def resumed_is_uninterrupted() -> None:
    ids = torch.arange(8)
    whole = run(ids, trajectory=True)
    middle = whole.trajectory[1]
    again = Stepwise(4).sample(process_of(), real_network(), middle, Noise.start(3, ids), first=2)
    assert all(torch.equal(one, other) for one, other in zip(again.tokens, whole.tokens, strict=True))


LAWS = (
    the_path_is_a_straight_line,
    the_loss_is_least_at_the_velocity,
    euler_is_of_first_and_heun_of_second_order,
    heun_is_better_at_equal_calls,
    samples_follow_the_data,
    one_step_has_the_closed_form,
    fixed_numbers_never_move,
    constraints_are_obeyed,
    guided_steps_keep_their_order,
    likelihood_is_the_density,
    functools.partial(likelihood_is_the_density, limit=100),
    likelihood_of_two_peaks,
    likelihood_given_fixed_numbers,
    rows_do_not_see_their_batch,
    packed_is_padded,
    resumed_is_uninterrupted,
)

"""4.1 to 4.5 and 4.7 for processes whose sites are drawn anew, against matrices; each law with planted faults.

Every registered one is run, with every source it takes. Numbers are those of `docs/laws.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.stepwise import Stepwise
from core.processes import _resampling_path
from core.processes._resampling_path import ResamplingPath, to_leave_one_out, to_posterior
from core.processes._source import TokenSource
from core.processes.base import Network
from core.processes.d3pm import D3pm
from core.processes.schedules import registry as schedules
from core.processes.udlm import UDLM
from tests.laws.toy_chains import CHAINS, NOISE, SIZE, VOCABULARY, ChainToy
from tests.laws.toy_faults import patched, replaced
from tests.laws.toy_kinds import fit
from tests.laws.toys import batch_of

LEAST_P, EXACT, DRAWS = 1e-5, 1e-9, 20_000  # frozen
KINDS = ("leave_one_out", "posterior")
TIMES = ((0.0, 0.125), (0.0, 1.0), (0.25, 0.375), (0.25, 0.75), (0.5, 0.5), (0.875, 1.0))
SQUARE = schedules.get("polynomial")(2.0)
every_chain = pytest.mark.parametrize(("key", "source"), CHAINS)


def toy_of(key: str, source: str, length: int = 2, seed: int = 0, timesteps: int = 8, **options: Any) -> ChainToy:
    """`timesteps` where the process counts them."""
    counted = {"timesteps": timesteps} if key == "d3pm" else {}
    return ChainToy(key, source, length, seed, {**counted, **options})


def rough(toy: ChainToy, seed: int = 7) -> Network:
    """A smooth random answer for each shown state, far from any posterior."""
    source = torch.Generator().manual_seed(seed)
    first, second = torch.randn(
        2, VOCABULARY.total**toy.length, toy.length, SIZE, dtype=torch.float64, generator=source
    )

    def answer(batch: SequenceBatch, time: Tensor | None) -> Tensor:
        place = (batch.tokens * VOCABULARY.total ** torch.arange(toy.length)).sum(-1)
        return first[place] if time is None else first[place] + time[..., None] * second[place]

    return answer


# --- 4.1: expected bound and entropy ----------------------------------------------------


def common(toy: ChainToy) -> float:
    """What the sites of x_s have in common given x_t, summed over the steps of the chain, nats."""
    assert toy.timesteps is not None
    total = 0.0
    for n in range(toy.timesteps):
        now, after = (toy.kappa((n + m) / toy.timesteps) for m in (0, 1))
        before = toy.marginal(now)
        joint = toy.marginal(after)[:, None] * toy.forward(now, after)
        known = before > 0
        whole = (joint[:, known] / before[known]).T
        apart = toy.joined(toy.sites(toy.posterior(toy.network("posterior"), "posterior", now), now, after))[known]
        some = whole > 0
        kl = torch.where(some, whole * (torch.where(some, whole / apart, 1.0)).log(), 0.0).sum(1)
        total += float(before[known] @ kl)
    return total


def bound_of_a_chain_is_the_entropy_and_what_sites_share(key: str, source: str, kind: str) -> None:
    """One token: the entropy, at any number of steps. More: above it by exactly what the sites of a step share."""
    for timesteps in (1, 2, 7):
        alone = toy_of(key, source, 1, timesteps=timesteps, parametrisation=kind, schedule=SQUARE)
        assert abs(alone.excess(alone.exact)) < EXACT
    gaps = []
    for timesteps in (8, 16):
        toy = toy_of(key, source, timesteps=timesteps, parametrisation=kind)
        gaps.append(toy.excess(toy.exact))
        assert abs(gaps[-1] - common(toy)) < EXACT
    assert gaps[0] > 1e-3 and 1.9 < gaps[0] / gaps[1] < 2.1


def bound_in_continuous_time_is_the_entropy(kind: str) -> None:
    for length in (1, 2, 3):
        toy = toy_of("udlm", "uniform", length, parametrisation=kind)
        # The table of laws asks for 1e-4; the quadrature is good for more.
        assert abs(toy.excess(toy.exact)) < EXACT


def one_head_for_the_other_is_loose() -> None:
    """Finding 7: P(x1 | x_t) where the other sites' law is meant costs 0.9 nats on two tokens of three letters."""
    toy = toy_of("udlm", "uniform")
    assert abs(toy.excess(toy.network("posterior")) - 0.938) < 0.02
    other = toy_of("udlm", "uniform", parametrisation="posterior")
    assert other.excess(other.network("leave_one_out")) > 0.1
    chain = toy_of("d3pm", "uniform", timesteps=64)
    assert chain.excess(chain.network("posterior")) > 0.1
    masked = toy_of("d3pm", "mask")
    assert masked.excess(masked.network("posterior")) == pytest.approx(masked.excess(masked.exact), abs=1e-12)


def bound_is_least_at_the_exact_answer(key: str, source: str) -> None:
    toy = toy_of(key, source)
    best, exact = toy.excess(toy.exact), toy.exact
    for seed in range(3):
        wrong = 0.03 * torch.randn(SIZE, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        assert toy.excess(lambda batch, time, w=wrong: exact(batch, time) + w) > best


def short_steps_tend_to_continuous_time() -> None:
    """As 1 / T, for any network: the chain's bound and its sampler."""
    limit = toy_of("udlm", "uniform")
    network = rough(limit)
    bound = float(limit.bounds(network) @ limit.q)
    gaps = []
    for timesteps in (64, 128, 256):
        toy = toy_of("d3pm", "uniform", timesteps=timesteps)
        gaps.append(abs(float(toy.bounds(network) @ toy.q) - bound))
        for t, s in ((0.25, 0.5), (0.5, 1.0)):
            assert torch.equal(toy.kernel(t, s, network), limit.kernel(t, s, network))
    assert 1.8 < gaps[0] / gaps[1] < 2.3 and 1.8 < gaps[1] / gaps[2] < 2.3


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", [source for key, source in CHAINS if key == "d3pm"])
def test_bound_of_a_chain_is_the_entropy_and_what_sites_share(source: str, kind: str) -> None:
    bound_of_a_chain_is_the_entropy_and_what_sites_share("d3pm", source, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_bound_in_continuous_time_is_the_entropy(kind: str) -> None:
    bound_in_continuous_time_is_the_entropy(kind)


def test_one_head_for_the_other_is_loose() -> None:
    one_head_for_the_other_is_loose()


@every_chain
def test_bound_is_least_at_the_exact_answer(key: str, source: str) -> None:
    bound_is_least_at_the_exact_answer(key, source)


def test_short_steps_tend_to_continuous_time() -> None:
    short_steps_tend_to_continuous_time()


# --- the converter ----------------------------------------------------------------------


def heads_convert_into_each_other(source: str) -> None:
    """Exact answers into exact answers, at any time; any answer comes back; nothing happens at a mask."""
    toy = toy_of("d3pm", source)
    batch = batch_of(toy.states)
    chance = NOISE[source][toy.states]
    for kappa in (0.0, 0.3, 0.7, 1 - 1e-6):
        time = torch.full(toy.states.shape, kappa, dtype=torch.float64)
        one, other = (toy.network(kind)(batch, time) for kind in KINDS)
        open_ = (chance > 0).all(1)
        rows = (one[open_], toy.states[open_], time[open_], chance[open_])
        assert torch.allclose(to_posterior(*rows).exp(), other[open_].exp(), atol=1e-9)
        assert torch.allclose(to_leave_one_out(other[open_], *rows[1:]).exp(), one[open_].exp(), atol=1e-9)
        said = rough(toy)(batch, time)[open_].log_softmax(-1)
        there, back = to_posterior(said, *rows[1:]), to_leave_one_out(said, *rows[1:])
        assert torch.allclose(to_leave_one_out(there, *rows[1:]), said, atol=1e-9)
        assert torch.allclose(to_posterior(back, *rows[1:]), said, atol=1e-9)
        same = bool(torch.allclose(there, said, atol=1e-6))
        assert same == (source == "mask" or kappa == 0)


@pytest.mark.parametrize("source", NOISE)
def test_heads_convert_into_each_other(source: str) -> None:
    heads_convert_into_each_other(source)


# --- 4.2: likelihood against enumeration ------------------------------------------------


def bound_exceeds_the_nll_by_the_path_kl(source: str, kind: str) -> None:
    """All ways of a chain of three steps, under a network far from any posterior."""
    toy = toy_of("d3pm", source, timesteps=3, parametrisation=kind, schedule=SQUARE)
    network, times = rough(toy), [(n / 3, (n + 1) / 3) for n in range(3)]
    kappa = [toy.kappa(t) for t, _ in times]
    steps = [
        toy.joined(toy.sites(toy.posterior(network, kind, now), now, toy.kappa(s)))
        for now, (_, s) in zip(kappa, times, strict=True)
    ]
    start = toy.noise[toy.states].prod(-1)
    bounds = toy.bounds(network)
    for row, place in enumerate(toy.data.tolist()):
        model = torch.einsum("a,ab,bc,c->abc", start, steps[0], steps[1], steps[2][:, place])
        last = toy.forward(kappa[2], to=toy.sequences[row : row + 1])[0]
        true = torch.einsum("c,cb,ba->abc", last, toy.forward(kappa[1], kappa[2]), toy.forward(kappa[0], kappa[1]))
        nll, some = -float(model.sum().log()), true > 0
        ratio = torch.where(some, true / (model / model.sum()), 1.0)
        path_kl = float(torch.where(some, true * ratio.log(), 0.0).sum())
        assert path_kl > 0 and float(bounds[row]) >= nll
        assert abs(float(bounds[row]) - nll - path_kl) < EXACT


def bound_exceeds_the_nll_in_continuous_time() -> None:
    """The law of ever shorter steps, by extrapolation."""
    toy = toy_of("udlm", "uniform")
    network = rough(toy)
    found = [toy.propagated(steps, lambda t, s: toy.kernel(t, s, network)) for steps in (16, 32, 64)]
    once = [2 * found[1] - found[0], 2 * found[2] - found[1]]
    law = (4 * once[1] - once[0]) / 3
    assert float((law - once[1]).abs().max()) < 1e-3
    assert bool((toy.bounds(network) + law.log() > 0.01).all())


def estimates_agree_with_the_bound(key: str, source: str) -> None:
    """The loss per token and the likelihood, each within four standard errors, told by the likelihood itself."""
    toy, repeats = toy_of(key, source, seed=4, timesteps=5), 600
    network = rough(toy)
    rows = toy.sequences.repeat(repeats, 1)
    noise, batch = Noise.start(5, torch.arange(len(rows))), batch_of(rows)
    toy.process.length_prior.fit(torch.full((10,), 2))
    wanted, length = toy.bounds(network), float(toy.process.length_prior.nll(torch.tensor([2])))
    loss = toy.process.loss(network, batch, noise)
    assert int(loss.count) == rows.numel()
    found = toy.process.likelihood(network, batch, noise, 8)
    assert found.kind == "bound" and found.tokens.tolist() == [3] * len(rows)
    for values, more in ((loss.values.sum(1), 0.0), (found.nll, length)):
        each = values.double().reshape(repeats, -1)
        error = each.std(0) / repeats**0.5
        assert bool(((each.mean(0) - wanted - more).abs() < 4 * error).all())
    # Of 5,400 errors told; a mean square of nearly normal ones.
    told = found.error.square().reshape(repeats, -1).mean(0) / found.nll.reshape(repeats, -1).var(0)
    assert bool(((told - 1).abs() < 0.3).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("source", [source for key, source in CHAINS if key == "d3pm"])
def test_bound_exceeds_the_nll_by_the_path_kl(source: str, kind: str) -> None:
    bound_exceeds_the_nll_by_the_path_kl(source, kind)


def test_bound_exceeds_the_nll_in_continuous_time() -> None:
    bound_exceeds_the_nll_in_continuous_time()


@every_chain
def test_estimates_agree_with_the_bound(key: str, source: str) -> None:
    estimates_agree_with_the_bound(key, source)


def test_the_auxiliary_cross_entropy_shares_the_bounds_optimum() -> None:
    """It is that of P(x1_i | x_t), whatever the network answers, so the exact answer minimises both."""
    for kind in KINDS:
        plain, helped = (toy_of("d3pm", "uniform", parametrisation=kind, auxiliary=weight) for weight in (0.0, 0.5))
        rows = plain.sequences.repeat(2, 1)
        noise, batch = Noise.start(2, torch.arange(len(rows))), batch_of(rows)
        noisy, place = plain.process._training_draw(batch, noise)
        wanted = plain.network("posterior")(noisy, plain.process._time(place))
        one, other = (toy.process.loss(plain.exact, batch, noise).values for toy in (plain, helped))
        assert torch.allclose(2 * (other - one), -wanted.gather(-1, rows[..., None])[..., 0], atol=1e-9)


# --- 4.3: the chain's marginals, and rates ----------------------------------------------


def steps_multiply_to_the_path(key: str, source: str) -> None:
    """Forward: the product of the chain's matrices is what `corrupt` draws. Backward: from p_t each step gives the
    law of every site at s, and of one-token sequences all of it."""
    for length in (1, 2):
        toy = toy_of(key, source, length, timesteps=8)
        now = toy.marginal(0.0)
        for t, s in toy.process.grid(8):
            now, wanted = toy.marginal(toy.kappa(t)) @ toy.kernel(t, s), toy.marginal(toy.kappa(s))
            for site in range(length):
                ids = torch.arange(VOCABULARY.total)[:, None] == toy.states[:, site]
                assert torch.allclose(ids.double() @ now, ids.double() @ wanted, atol=1e-12)
            assert length > 1 or torch.allclose(now, wanted, atol=1e-12)
    toy = toy_of(key, source, 1, timesteps=8)
    once = torch.eye(VOCABULARY.total, dtype=torch.float64)
    for n in reversed(range(8)):
        a = toy.kappa(n / 8) / toy.kappa((n + 1) / 8)
        once = once @ (a * torch.eye(VOCABULARY.total) + (1 - a) * toy.noise.expand(VOCABULARY.total, -1))
        if n in (2, 5):
            clean = batch_of(torch.zeros(DRAWS, 1, dtype=torch.long))
            time = torch.full((DRAWS, 1), n / 8, dtype=torch.float64)
            drawn = toy.process.corrupt(clean, time, Noise.start(n, torch.arange(DRAWS))).tokens[:, 0].tolist()
            assert fit(dict(enumerate(once[0].tolist())), drawn) > LEAST_P


def rates_solve_the_kolmogorov_equation(schedule: str) -> None:
    """In continuous time, by two widths, so that the error goes as the square of the width."""
    toy, width = toy_of("udlm", "uniform", schedule=schedules.get(schedule)()), 1e-5
    for t in (0.2, 0.5, 0.9):
        now = toy.marginal(toy.kappa(t))
        slope = (toy.marginal(toy.kappa(t + width)) - toy.marginal(toy.kappa(t - width))) / (2 * width)
        moved = [(now @ toy.kernel(t, t + h) - now) / h for h in (width, width / 2)]
        assert float((2 * moved[1] - moved[0] - slope).abs().max()) < 1e-6


@every_chain
def test_steps_multiply_to_the_path(key: str, source: str) -> None:
    steps_multiply_to_the_path(key, source)


@pytest.mark.parametrize("schedule", schedules.keys())
def test_rates_solve_the_kolmogorov_equation(schedule: str) -> None:
    rates_solve_the_kolmogorov_equation(schedule)


# --- 4.4: one step ----------------------------------------------------------------------


def kernels_are_those_of_bayes_rule(key: str, source: str, kind: str) -> None:
    """From every state that can be, over one step of the chain or several, for exact and for any answers."""
    toy = toy_of(key, source, parametrisation=kind, schedule=SQUARE)
    network = rough(toy)
    for t, s in TIMES:
        now, after = toy.kappa(t), toy.kappa(s)
        some = toy.marginal(now) > 0
        assert torch.allclose(toy.kernel(t, s)[some], toy.step(t, s)[some], atol=1e-12)
        wanted = toy.joined(toy.sites(toy.posterior(network, kind, now), now, after))
        assert torch.allclose(toy.kernel(t, s, network)[some], wanted[some], atol=1e-12)


def p_of_a_step(key: str, source: str, t: float, s: float, draws: int = 1_000_000) -> float:
    """A million draws from one state against the kernel by Bayes' rule."""
    toy = toy_of(key, source)
    shown = torch.tensor([VOCABULARY.mask, 1] if source == "mask" and t else [toy.states[-1, 0], toy.states[-1, 1]])
    index = int((toy.states == shown).all(1).nonzero()[0, 0])
    single = batch_of(shown[None])

    def network(batch: SequenceBatch, time: Tensor | None) -> Tensor:
        said = toy.exact(single, None if time is None else time[:1])
        return said.expand(batch.layout.count, -1, -1)

    batch = batch_of(shown.expand(draws, 2))
    move = toy.process.transition(network, batch, t, s).draw(batch, Noise.start(5, torch.arange(draws)), None, None)
    place = VOCABULARY.total ** torch.arange(2)
    cells = torch.bincount((move.batch.tokens * place).sum(1), minlength=VOCABULARY.total**2)
    expected = toy.step(t, s)[index]
    counts, alive = cells[(toy.states * place).sum(1)].double(), expected > 1e-12
    assert int(counts[alive].sum()) == draws
    if int(alive.sum()) == 1:
        return 1.0
    return float(chisquare(counts[alive].numpy(), (expected[alive] / expected[alive].sum()).numpy() * draws).pvalue)


@pytest.mark.parametrize("kind", KINDS)
@every_chain
def test_kernels_are_those_of_bayes_rule(key: str, source: str, kind: str) -> None:
    kernels_are_those_of_bayes_rule(key, source, kind)


@pytest.mark.parametrize(("t", "s"), [(0.0, 0.1), (0.0, 1.0), (0.5, 0.7), (0.9, 0.99), (0.99, 1.0)])
@every_chain
def test_a_step_is_drawn_from_its_kernel(key: str, source: str, t: float, s: float) -> None:
    assert p_of_a_step(key, source, t, s) > LEAST_P


@every_chain
def test_planted_bias_of_one_percent_is_caught(key: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patched(ResamplingPath, "_jump", lambda found, *asked: found * 1.01)(monkeypatch)
    assert p_of_a_step(key, source, 0.5, 0.8) < LEAST_P


# --- 4.5, 4.7: whole runs ---------------------------------------------------------------


def runs_tend_to_the_data(key: str, source: str) -> None:
    """At the rate of 1 / steps; a chain takes no more steps than it has."""
    toy = toy_of(key, source, 3, seed=1, timesteps=32, schedule=SQUARE)
    gaps = [float((toy.propagated(steps, toy.kernel) - toy.q).abs().sum() / 2) for steps in (4, 8, 16, 32)]
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3] and 1.5 < gaps[2] / gaps[3] < 2.6
    if toy.timesteps is not None:
        assert toy.process.grid(100) == toy.process.grid(32) == [(n / 32, (n + 1) / 32) for n in range(32)]
        assert [t for t, _ in toy.process.grid(5)] == [n / 32 for n in (0, 6, 12, 19, 25)]


def runs_follow_the_definition(key: str, source: str, steps: int = 4) -> None:
    """The start and the sequences after each step, against products of kernels by Bayes' rule."""
    toy = toy_of(key, source, seed=2)
    noise = Noise.start(11, torch.arange(DRAWS))
    start = toy.start(DRAWS, noise)
    now = toy.noise[toy.states].prod(-1)
    path = Stepwise(steps, trajectory=True).sample(toy.process, toy.exact, start, noise).trajectory
    assert fit(toy.table(now), [tuple(row) for row in start.tokens.tolist()]) > LEAST_P
    for (t, s), batch in zip(toy.process.grid(steps), path, strict=True):
        now = now @ toy.step(t, s)
        assert fit(toy.table(now), [tuple(row) for row in batch.tokens.tolist()]) > LEAST_P


def corrector_keeps_the_law(key: str, source: str, t: float = 0.5, s: float = 0.75) -> None:
    """From p_t back along the path, then forward to s: p_s, of sequences of one token."""
    toy = toy_of(key, source, 1)
    law = toy.marginal(toy.kappa(t))
    drawn = torch.multinomial(law, DRAWS, True, generator=torch.Generator().manual_seed(3))
    batch, noise = batch_of(toy.states[drawn]), Noise.start(5, torch.arange(DRAWS))
    batch, earlier = toy.process.renoise(batch, t, s, 2.0, noise)
    rows = lambda found: [tuple(row) for row in found.tokens.tolist()]  # noqa: E731
    assert earlier < t and fit(toy.table(toy.marginal(toy.kappa(earlier))), rows(batch)) > LEAST_P
    moved = toy.process.transition(toy.exact, batch, earlier, s).draw(batch, noise, None, None).batch
    assert fit(toy.table(toy.marginal(toy.kappa(s))), rows(moved)) > LEAST_P


@every_chain
def test_runs_tend_to_the_data(key: str, source: str) -> None:
    runs_tend_to_the_data(key, source)


@every_chain
def test_runs_follow_the_definition(key: str, source: str) -> None:
    runs_follow_the_definition(key, source)


@every_chain
def test_corrector_keeps_the_law(key: str, source: str) -> None:
    corrector_keeps_the_law(key, source)


# --- planted faults ---------------------------------------------------------------------


def _one_head_for_the_other(patch: pytest.MonkeyPatch) -> None:
    """Finding 7: a network that answers P(x1 | x_t) is used as it is."""
    true = ResamplingPath._log_answer
    patch.setattr(
        ResamplingPath, "_log_leave_one_out", lambda self, net, batch, kappa, chance: true(self, net, batch, kappa)
    )


def _costs(change: Callable[..., tuple]) -> Callable[[pytest.MonkeyPatch], None]:
    """`_cost` asked something else."""
    true = ResamplingPath._cost
    return replaced(ResamplingPath, "_cost", lambda self, *asked: true(self, *asked[:3], *change(*asked[3:])))


def _goal_without_noise(patch: pytest.MonkeyPatch) -> None:
    true = ResamplingPath._log_goal
    patch.setattr(ResamplingPath, "_log_goal", lambda self, net, batch, t, s: true(self, net, batch, t, s * 0 + 1))


def _jump_of_a_flow(patch: pytest.MonkeyPatch) -> None:
    """The mixture's kernel: a site that moved has arrived."""

    def jump(self: ResamplingPath, batch: SequenceBatch, t: Tensor, s: Tensor) -> Tensor:
        now, after = self._shares(t, s)
        return torch.where(s >= 1, 1.0, (after - now) / (1 - now).clamp_min(1e-300))

    patch.setattr(ResamplingPath, "_jump", jump)


def _uniform_noise(patch: pytest.MonkeyPatch) -> None:
    patched(TokenSource, "laws", lambda found, self: torch.full_like(found, 1 / SIZE))(patch)


def _one_step_late(patch: pytest.MonkeyPatch) -> None:
    """The data are shown for the step before."""
    patched(D3pm, "_time", lambda found, self, place: (found - 1 / self.timesteps).clamp_min(0))(patch)


def _time_shifted(patch: pytest.MonkeyPatch) -> None:
    patched(UDLM, "_time", lambda found, *_: found**0.8)(patch)


def _evidence_without_chance(patch: pytest.MonkeyPatch) -> None:
    replaced(_resampling_path, "_evidence", lambda kappa, chance: torch.log1p(kappa / (1 - kappa)))(patch)


def _network_told_another_time(patch: pytest.MonkeyPatch) -> None:
    true = ResamplingPath._log_answer
    patch.setattr(ResamplingPath, "_log_answer", lambda self, net, batch, kappa: true(self, net, batch, kappa / 2))


def _time_stands_still(patch: pytest.MonkeyPatch) -> None:
    true = ResamplingPath.renoise
    patch.setattr(ResamplingPath, "renoise", lambda self, b, t, *rest: (true(self, b, t, *rest)[0], t - 1e-9))


_NOTHING_FOR_STAYING = _costs(lambda now, after, redrawn, kept: (now, after, redrawn, 0 * kept))
_WEIGHT_LOST = _costs(lambda now, after, redrawn, kept: (now, after, redrawn * after, kept))
_STEP_WITHOUT_WIDTH = _costs(lambda now, after, redrawn, kept: (now, now.clamp_min(1e-9), redrawn, kept))

FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = {
    "one_head_for_the_other": (_one_head_for_the_other, lambda: bound_in_continuous_time_is_the_entropy("posterior")),
    "one_head_for_the_other_in_steps": (
        _one_head_for_the_other,
        lambda: bound_of_a_chain_is_the_entropy_and_what_sites_share("d3pm", "uniform", "posterior"),
    ),
    "one_head_for_the_other_in_a_kernel": (
        _one_head_for_the_other,
        lambda: kernels_are_those_of_bayes_rule("udlm", "uniform", "posterior"),
    ),
    "evidence_without_chance": (_evidence_without_chance, lambda: heads_convert_into_each_other("marginal")),
    "nothing_for_staying": (
        _NOTHING_FOR_STAYING,
        lambda: bound_of_a_chain_is_the_entropy_and_what_sites_share("d3pm", "uniform", "leave_one_out"),
    ),
    "weight_lost": (_WEIGHT_LOST, lambda: bound_exceeds_the_nll_by_the_path_kl("mask", "leave_one_out")),
    "weight_lost_in_continuous_time": (_WEIGHT_LOST, lambda: bound_in_continuous_time_is_the_entropy("leave_one_out")),
    "step_without_width": (
        _STEP_WITHOUT_WIDTH,
        lambda: bound_exceeds_the_nll_by_the_path_kl("uniform", "leave_one_out"),
    ),
    "half_the_bound": (
        patched(UDLM, "integrand", lambda found, *_: (found[0] / 2, *found[1:])),
        bound_exceeds_the_nll_in_continuous_time,
    ),
    "goal_without_noise": (_goal_without_noise, lambda: kernels_are_those_of_bayes_rule("d3pm", "uniform", KINDS[0])),
    "jump_of_a_flow": (_jump_of_a_flow, lambda: rates_solve_the_kolmogorov_equation("cosine")),
    "jump_of_a_flow_in_steps": (_jump_of_a_flow, lambda: steps_multiply_to_the_path("d3pm", "marginal")),
    "uniform_noise": (_uniform_noise, lambda: steps_multiply_to_the_path("d3pm", "marginal")),
    "uniform_start": (_uniform_noise, lambda: runs_follow_the_definition("d3pm", "marginal")),
    "one_step_late": (_one_step_late, lambda: estimates_agree_with_the_bound("d3pm", "uniform")),
    "time_shifted": (_time_shifted, lambda: estimates_agree_with_the_bound("udlm", "uniform")),
    "network_told_another_time": (_network_told_another_time, lambda: runs_follow_the_definition("udlm", "uniform")),
    "runs_without_noise": (_goal_without_noise, lambda: runs_tend_to_the_data("udlm", "uniform")),
    "runs_of_another_head": (_one_head_for_the_other, one_head_for_the_other_is_loose),
    "back_without_time": (_time_stands_still, lambda: corrector_keeps_the_law("udlm", "uniform")),
    "perturbed_is_better": (
        patched(ResamplingPath, "_log_answer", lambda found, *_: (0.7 * found).log_softmax(-1)),
        lambda: bound_is_least_at_the_exact_answer("d3pm", "mask"),
    ),
    "steps_of_another_size": (
        patched(D3pm, "_number", lambda found, *_: (found - 1).clamp_min(0)),
        short_steps_tend_to_continuous_time,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law = FAULTS[name]
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()

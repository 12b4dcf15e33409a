"""Laws of the processes, against enumeration and closed forms; each with planted faults.

Numbers such as 4.1 are those of the laws in `docs/laws.md`.
"""

from __future__ import annotations

import jaxtyping
import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.packing import pack, packed_layout
from core.data.sequence_batch import SequenceBatch
from core.decoding.stepwise import Stepwise
from core.processes import registry
from core.processes.autoregressive import Autoregressive
from core.processes.mixture_flow import MixtureFlow
from core.processes.schedules import registry as schedules
from core.processes.transitions.append import Append
from core.processes.transitions.substitute import Substitute
from core.tokenizers.base import Vocabulary
from pipelines.check import check
from tests.laws.toys import ToyLaw, batch_of, kernel_matrix

SOURCES = ("mask", "uniform")
SCHEDULES = [(key, schedules.get(key)()) for key in schedules.keys()] + [("square", schedules.get("polynomial")(2.0))]


def flow(law: ToyLaw, source: str, schedule=None, **options) -> MixtureFlow:
    return MixtureFlow(law.vocabulary, source=source, schedule=schedule, **options).double()


# --- 4.1: expected bound = entropy ------------------------------------------------------


def expected_bound(law: ToyLaw, process: MixtureFlow, network, points: int = 60) -> float:
    """E over x1, x_t and kappa of the integrand, by enumeration and Gauss-Legendre."""
    nodes, weights = np.polynomial.legendre.leggauss(points)
    states = law.states(process.source)
    total = 0.0
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        path = law.path(process.source, float(node), states)
        for index, sequence in enumerate(law.sequences):
            clean = batch_of(sequence.expand(len(states), -1))
            kappa = torch.full(states.shape, float(node), dtype=torch.float64)
            value = process.integrand(network, clean, batch_of(states), kappa)[0].sum(1)
            total += float(weight * law.q[index] * (path[:, index] * value).sum())
    return total


def test_masked_bound_is_the_entropy() -> None:
    law = ToyLaw()
    assert abs(expected_bound(law, flow(law, "mask"), law.network("mask"), 8) - law.entropy) < 1e-9


def uniform_bound_is_loose_and_least_at_the_posterior() -> None:
    law = ToyLaw()
    process, network = flow(law, "uniform"), law.network("uniform")
    best = expected_bound(law, process, network)
    assert best > law.entropy + 0.1
    for seed in range(3):
        noise = 0.03 * torch.randn(law.vocabulary.size, generator=torch.Generator().manual_seed(seed)).double()
        assert expected_bound(law, process, lambda batch, time, n=noise: network(batch, time) + n) > best


def test_uniform_bound_is_loose_and_least_at_the_posterior() -> None:
    uniform_bound_is_loose_and_least_at_the_posterior()


def test_planted_fault_in_the_bound_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    law = ToyLaw()
    process = flow(law, "mask")
    right = process.integrand
    monkeypatch.setattr(process, "integrand", lambda n, c, x, k: (right(n, c, x, k)[0] * (1 - k), None, None))
    assert abs(expected_bound(law, process, law.network("mask"), 8) - law.entropy) > 1e-3


def _nothing_flows_out(patch: pytest.MonkeyPatch) -> None:
    """The cross-entropy alone, without the posterior at the present token."""
    true = MixtureFlow.integrand

    def changed(self: MixtureFlow, network, clean: SequenceBatch, noisy: SequenceBatch, kappa: torch.Tensor):
        _, cross_entropy, counted = true(self, network, clean, noisy, kappa)
        return torch.where(clean.tokens == noisy.tokens, 0.0, cross_entropy) / (1 - kappa), cross_entropy, counted

    patch.setattr(MixtureFlow, "integrand", changed)


def _posterior_too_warm(patch: pytest.MonkeyPatch) -> None:
    true = MixtureFlow._log_answer
    patch.setattr(MixtureFlow, "_log_answer", lambda self, *a: (0.9 * true(self, *a)).log_softmax(-1))


@pytest.mark.parametrize("fault", [_nothing_flows_out, _posterior_too_warm])
def test_planted_faults_in_the_uniform_bound_are_caught(fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        uniform_bound_is_loose_and_least_at_the_posterior()


# --- 4.2: likelihood against enumeration ------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_likelihood_estimates_the_bound(source: str) -> None:
    """The quadrature's mean over the data equals the enumerated bound, within its own error."""
    law = ToyLaw()
    process, network = flow(law, source), law.network(source)
    repeats = 40
    rows = law.sequences.repeat(repeats, 1)
    process.length_prior.fit(torch.full((10,), 2))
    ids = torch.arange(len(rows))
    wanted = expected_bound(law, process, network) + float(process.length_prior.nll(torch.tensor([2])))
    result = process.likelihood(network, batch_of(rows), Noise.start(3, ids), 64)
    weights = law.q.repeat(repeats) / repeats
    spread = result.nll.reshape(repeats, -1).std(0)
    error = float((law.q.square() * spread.square() / repeats).sum().sqrt())
    assert abs(float(result.nll @ weights) - wanted) < 4 * error


def test_autoregressive_likelihood_is_the_chain_rule() -> None:
    vocabulary = Vocabulary(3)
    process = Autoregressive(vocabulary, limit=4)
    table = torch.randn(vocabulary.total, vocabulary.size + 1, dtype=torch.float64)

    def network(batch: SequenceBatch, time) -> torch.Tensor:
        return table[batch.tokens]

    lengths = torch.tensor([3, 0, 1])
    rows = torch.tensor([[0, 2, 1], [9, 9, 9], [2, 9, 9]]).clamp_max(vocabulary.pad)
    batch = SequenceBatch(rows, Layout.padded(lengths, 3))
    result = process.likelihood(network, batch, Noise.start(0, torch.arange(3)), 1)
    law = table.log_softmax(-1)
    bos, eos = vocabulary.bos, vocabulary.eos
    chains = [[bos, 0, 2, 1, eos], [bos, eos], [bos, 2, eos]]
    wanted = [-sum(float(law[a, b]) for a, b in zip(chain, chain[1:], strict=False)) for chain in chains]
    assert torch.allclose(result.nll, torch.tensor(wanted, dtype=torch.float64), atol=1e-12)
    assert result.kind == "exact" and result.tokens.tolist() == [4, 1, 2]
    packed = packed_layout(batch.layout, width=6)
    again = process.likelihood(
        network, SequenceBatch(pack(rows, batch.layout, 6), packed), Noise.start(0, torch.arange(3)), 1
    )
    assert torch.allclose(again.nll, result.nll, atol=1e-12)


def test_autoregressive_training_hides_context_and_nothing_else() -> None:
    vocabulary = Vocabulary(3)
    process = Autoregressive(vocabulary, limit=50, context_dropout=0.3)
    lengths = torch.full((400,), 50)
    rows = torch.arange(400 * 50).reshape(400, 50) % 3
    batch, noise = SequenceBatch(rows, Layout.padded(lengths, 50)), Noise.start(1, torch.arange(400))
    seen: list[SequenceBatch] = []

    def network(batch: SequenceBatch, time) -> torch.Tensor:
        seen.append(batch)
        return torch.zeros(*batch.tokens.shape, vocabulary.size + 1)

    process.loss(network, batch, noise)
    shown, whole = seen[0], process.corrupt(batch, torch.zeros(400, 50), noise)
    hidden = shown.tokens == vocabulary.mask
    assert not hidden[:, 0].any() and torch.equal(shown.tokens[~hidden], whole.tokens[~hidden])
    assert shown.targets is not None and whole.targets is not None and torch.equal(shown.targets, whole.targets)
    # Four standard errors of 20,000 draws.
    assert abs(float(hidden[:, 1:].double().mean()) - 0.3) < 4 * (0.3 * 0.7 / 20_000) ** 0.5
    process.likelihood(network, batch, noise, 1)
    assert torch.equal(seen[1].tokens, whole.tokens)
    packed = SequenceBatch(pack(rows, batch.layout, 400 * 50), packed_layout(batch.layout, width=400 * 50))
    process.loss(network, packed, noise)
    assert torch.equal(seen[2].tokens.flatten()[: 400 * 51], shown.tokens.flatten())


# --- 4.3: Kolmogorov equation -----------------------------------------------------------


def kolmogorov_error(law: ToyLaw, process: MixtureFlow, t: float) -> float:
    """max |d p_t / dt - sum_y u(x, y) p_t(y)|, rates from the kernel over a small step."""
    states = law.states(process.source)
    step, network = 1e-5, law.network(process.source)
    kappa = lambda time: float(process.schedule.kappa(torch.tensor(time, dtype=torch.float64)))  # noqa: E731
    marginal = law.marginal(process.source, kappa(t), states)
    slope = (
        law.marginal(process.source, kappa(t + step), states) - law.marginal(process.source, kappa(t - step), states)
    ) / (2 * step)

    def moved(width: float) -> torch.Tensor:
        return (marginal @ kernel_matrix(process, law, network, t, t + width) - marginal) / width

    # Two widths, so that the error goes as the square of the width.
    flow_in = 2 * moved(step / 2) - moved(step)
    return float((flow_in - slope).abs().max())


@pytest.mark.parametrize("step", ["exact", "euler"])
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name,schedule", SCHEDULES, ids=[name for name, _ in SCHEDULES])
def test_rates_solve_the_kolmogorov_equation(source: str, name: str, schedule, step: str) -> None:
    law = ToyLaw()
    process = flow(law, source, schedule, step=step)
    for t in (0.2, 0.5, 0.9):
        assert kolmogorov_error(law, process, t) < 1e-6


def test_planted_fault_in_the_rates_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    law = ToyLaw()
    process = flow(law, "mask")
    monkeypatch.setattr(process, "_jump", lambda batch, t, s: process.schedule.kappa(s) - process.schedule.kappa(t))
    assert kolmogorov_error(law, process, 0.5) > 1e-3


# --- 4.4: one-step kernel by chi-square -------------------------------------------------


def kernel_p_value(law: ToyLaw, process: MixtureFlow, t: float, s: float, draws: int, seed: int) -> float:
    """Chi-square of draws from one state against the closed form of the conditional kernel."""
    source = process.source
    start = torch.tensor([law.vocabulary.mask, 1]) if source == "mask" else torch.tensor([2, 1])
    states = law.states(source)
    kappa = [float(process.schedule.kappa(torch.tensor(x, dtype=torch.float64))) for x in (t, s)]
    jump = 1.0 if s == 1 else (kappa[1] - kappa[0]) / (1 - kappa[0])
    time = torch.full((1, 2), kappa[0], dtype=torch.float64)
    posterior = law.network(source)(batch_of(start[None]), time if process.timed else None)[0].exp()
    expected = torch.ones(len(states), dtype=torch.float64)
    for place in range(2):
        moves = 0.0 if start[place] == 1 and source == "mask" else jump
        site = torch.zeros(law.vocabulary.total, dtype=torch.float64)
        site[: law.vocabulary.size] = moves * posterior[place]
        site[start[place]] += 1 - moves
        expected *= site[states[:, place]]
    batch = batch_of(start.expand(draws, 2))
    move = process.transition(law.network(source), batch, t, s).draw(
        batch, Noise.start(seed, torch.arange(draws)), None, None
    )
    index = (move.batch.tokens[:, None, :] == states[None]).all(-1).long().argmax(1)
    counts = torch.bincount(index, minlength=len(states)).double()
    alive = expected > 1e-12
    assert not bool(counts[~alive].any())
    if int(alive.sum()) == 1:
        return 1.0
    return float(chisquare(counts[alive].numpy(), (expected[alive] / expected[alive].sum()).numpy() * draws).pvalue)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("t,s", [(0.0, 0.1), (0.0, 1.0), (0.5, 0.7), (0.9, 0.99), (0.99, 1.0)])
def test_one_step_kernel(source: str, t: float, s: float) -> None:
    law = ToyLaw()
    assert kernel_p_value(law, flow(law, source), t, s, 1_000_000, seed=5) > 1e-5


def test_planted_bias_of_one_percent_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    law = ToyLaw()
    process = flow(law, "mask")
    right = process._jump
    monkeypatch.setattr(process, "_jump", lambda *asked: right(*asked) * 1.01)
    assert kernel_p_value(law, process, 0.5, 0.8, 1_000_000, seed=5) < 1e-5


# --- 4.5: the whole sampler -------------------------------------------------------------


def propagated(law: ToyLaw, process: MixtureFlow, steps: int) -> torch.Tensor:
    """The law of the sampler's output over the data sequences, without drawing."""
    states = law.states(process.source)
    if process.source == "mask":
        now = (states == law.vocabulary.mask).all(1).double()
    else:
        now = torch.full((len(states),), 1.0 / len(states), dtype=torch.float64)
    for t, s in process.grid(steps):
        now = now @ kernel_matrix(process, law, law.network(process.source), t, s)
    place = (law.sequences[:, None, :] == states[None]).all(-1).double()
    return place @ now


@pytest.mark.parametrize("source", SOURCES)
def test_sampler_law_converges_and_exact_beats_euler(source: str) -> None:
    law = ToyLaw(size=3, length=3, seed=1)
    square = schedules.get("polynomial")(2.0)
    exact, euler = flow(law, source, square), flow(law, source, square, step="euler")
    gaps = {}
    for steps in (4, 8, 16, 32):
        gaps[steps] = [float((propagated(law, p, steps) - law.q).abs().sum() / 2) for p in (exact, euler)]
        assert gaps[steps][0] <= gaps[steps][1] + 1e-12
    assert gaps[4][0] > gaps[8][0] > gaps[16][0] > gaps[32][0]
    assert 1.5 < gaps[16][0] / gaps[32][0] < 2.6


@pytest.mark.parametrize("source", SOURCES)
def test_sampler_draws_from_the_propagated_law(source: str) -> None:
    law = ToyLaw(seed=2)
    process = flow(law, source)
    assert sampler_p_value(law, process) > 1e-5


def sampler_p_value(law: ToyLaw, process: MixtureFlow, draws: int = 40_000, steps: int = 4) -> float:
    noise = Noise.start(11, torch.arange(draws))
    start = process.prior(torch.full((draws,), 2), noise)
    samples = Stepwise(steps).sample(process, law.network(process.source), start, noise)
    rows = torch.stack(samples.tokens)
    index = (rows[:, None, :] == law.sequences[None]).all(-1).long().argmax(1)
    counts = torch.bincount(index, minlength=len(law.sequences)).double().numpy()
    return float(chisquare(counts, propagated(law, process, steps).numpy() * draws).pvalue)


def test_planted_time_shift_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    law = ToyLaw(seed=2)
    process = flow(law, "mask")
    right = process._jump
    wrong = flow(law, "mask")
    monkeypatch.setattr(wrong, "_jump", lambda b, t, s: torch.where(s >= 1, 1.0, 0.5 * right(b, t, s)))
    draws = 200_000
    noise = Noise.start(11, torch.arange(draws))
    start = wrong.prior(torch.full((draws,), 2), noise)
    rows = torch.stack(Stepwise(4).sample(wrong, law.network("mask"), start, noise).tokens)
    index = (rows[:, None, :] == law.sequences[None]).all(-1).long().argmax(1)
    counts = torch.bincount(index, minlength=len(law.sequences)).double().numpy()
    assert chisquare(counts, propagated(law, process, 4).numpy() * draws).pvalue < 1e-5


# --- 4.17: fixed tokens -----------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_fixed_tokens_never_move(source: str) -> None:
    law = ToyLaw(seed=3)
    process = flow(law, source)
    draws = 20_000
    noise = Noise.start(1, torch.arange(draws))
    start = process.prior(torch.full((draws,), 2), noise)
    tokens = start.tokens.clone()
    tokens[:, 0] = 1
    fixed = torch.tensor([True, False]).expand(draws, 2)
    start = SequenceBatch(tokens, start.layout, fixed=fixed)
    rows = torch.stack(Stepwise(6).sample(process, law.network(source), start, noise).tokens)
    assert bool((rows[:, 0] == 1).all())
    if source == "mask":
        # One free site: its law is q given the fixed one, at any number of steps.
        wanted = law.q[law.sequences[:, 0] == 1]
        counts = torch.bincount(rows[:, 1], minlength=3).double().numpy()
        assert chisquare(counts, (wanted / wanted.sum()).numpy() * draws).pvalue > 1e-5


def test_shown_sites_are_final_whatever_the_network_says() -> None:
    """SUBS: a network that always votes for token 0 cannot change a shown site."""
    process = MixtureFlow(Vocabulary(3))
    vote = lambda batch, time: torch.tensor([50.0, 0, 0]).expand(*batch.tokens.shape, 3)  # noqa: E731
    batch = batch_of(torch.tensor([[2, process.vocabulary.mask]]))
    transition = process.transition(vote, batch, 0.5, 1.0)
    assert isinstance(transition, Substitute)
    assert transition.jump.tolist() == [[0.0, 1.0]] and transition.settled.tolist() == [[2, -1]]


# --- several fields ---------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_fields_stay_in_their_ranges(source: str) -> None:
    support = torch.tensor([[True, True, False], [False, True, True]])
    process = MixtureFlow(Vocabulary(3), source=source, support=support)
    network = lambda batch, time: torch.zeros(*batch.tokens.flatten(1).shape, 3, dtype=torch.float64)  # noqa: E731
    draws = 30_000
    noise = Noise.start(2, torch.arange(draws))
    start = process.prior(torch.full((draws,), 2), noise)
    assert start.tokens.shape == (draws, 2, 2)
    rows = torch.stack(Stepwise(3).sample(process, network, start, noise).tokens)
    for field in range(2):
        counts = torch.bincount(rows[:, :, field].flatten(), minlength=3)
        assert bool((counts[~support[field]] == 0).all())
        assert chisquare(counts[support[field]].double().numpy()).pvalue > 1e-5


# --- 4.19: bad and border inputs --------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_borders_give_no_nan(source: str) -> None:
    process = MixtureFlow(Vocabulary(1), source=source)
    network = lambda batch, time: torch.zeros(*batch.tokens.shape, 1)  # noqa: E731
    lengths = torch.tensor([0, 1, 3])
    batch = SequenceBatch(torch.zeros(3, 3, dtype=torch.long), Layout.padded(lengths, 3))
    noise = Noise.start(0, torch.arange(3))
    assert bool(torch.isfinite(process.loss(network, batch, noise).mean()))
    all_fixed = SequenceBatch(batch.tokens, batch.layout, fixed=torch.ones(3, 3, dtype=torch.bool))
    assert float(process.loss(network, all_fixed, noise).mean()) == 0
    samples = Stepwise(5).sample(process, network, process.prior(lengths, noise), noise)
    assert [row.tolist() for row in samples.tokens] == [[], [0], [0, 0, 0]]
    assert bool(torch.isfinite(process.likelihood(network, batch_of(batch.tokens), noise, 8).nll).all())


def test_unknown_options_are_refused() -> None:
    for options in ({"source": "ones"}, {"loss": "mse"}, {"step": "tau"}):
        with pytest.raises((ValueError, jaxtyping.TypeCheckError)):
            MixtureFlow(Vocabulary(3), **options)


def test_append_beyond_the_limit_only_ends() -> None:
    process = Autoregressive(Vocabulary(3), limit=2)
    law = process.append(torch.zeros(1, 4), position=2)
    assert isinstance(law, Append)
    assert law.logits.softmax(-1).tolist() == [[0, 0, 0, 1]]


@pytest.mark.parametrize("name", registry.keys())
def test_every_registered_process_keeps_the_laws(name: str) -> None:
    assert [*check(name)][-1] == "all laws hold"

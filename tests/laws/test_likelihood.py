"""Laws of likelihoods: the bound against enumerated sampler paths, exact values against the sampler."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.stepwise import Stepwise
from core.processes.autoregressive import Autoregressive
from core.processes.base import Network
from core.processes.mixture_flow import MixtureFlow
from core.tokenizers.base import Vocabulary
from tests.laws.toy_kinds import fit
from tests.laws.toys import ToyLaw, batch_of, kernel_matrix, neighbours

VOCABULARY = Vocabulary(3)
MASK = VOCABULARY.mask


class Tabular:
    """A random answer for each site of each shown state, its own: far from any posterior."""

    def __init__(self, length: int) -> None:
        generator = torch.Generator().manual_seed(length)
        self.length, self.base = length, VOCABULARY.total
        shape = (self.base**length, length, VOCABULARY.size)
        self.table = torch.randn(shape, dtype=torch.float64, generator=generator)

    def __call__(self, batch: SequenceBatch, time: Tensor | None) -> Tensor:
        place = self.base ** torch.arange(self.length)
        return self.table[(batch.tokens * place).sum(-1)]


def log_orders(network: Network, sequence: tuple[int, ...]) -> Tensor:
    """log p(sequence | order) for every order in which the sites can be revealed, `[L!]`."""
    found = []
    for order in itertools.permutations(range(len(sequence))):
        shown, total = [MASK] * len(sequence), 0.0
        for site in order:
            law = network(batch_of(torch.tensor([shown])), None)[0, site].log_softmax(-1)
            total += float(law[sequence[site]])
            shown[site] = sequence[site]
        found.append(total)
    return torch.tensor(found, dtype=torch.float64)


def bound_of(process: MixtureFlow, network: Network, sequence: tuple[int, ...], points: int = 8) -> float:
    """The process's bound for one sequence: every shown state, Gauss-Legendre in kappa (exact for a polynomial)."""
    length = len(sequence)
    clean = torch.tensor([sequence])
    states = torch.tensor(list(itertools.product(*((token, MASK) for token in sequence))))
    nodes, weights = np.polynomial.legendre.leggauss(points)
    total = 0.0
    for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        masked = (states == MASK).sum(1).double()
        chance = (1 - node) ** masked * node ** (length - masked)
        kappa = torch.full(states.shape, float(node), dtype=torch.float64)
        value = process.integrand(network, batch_of(clean.expand(len(states), -1)), batch_of(states), kappa)[0].sum(1)
        total += float(weight * (chance * value).sum())
    return total


def bound_exceeds_the_nll_by_the_path_kl(length: int) -> None:
    """4.2: bound >= -log p, and the gap is the KL of the orders a priori to the orders given the sequence."""
    process, network = MixtureFlow(VOCABULARY).double(), Tabular(length)
    for sequence in itertools.product(range(3), repeat=length):
        orders = log_orders(network, sequence)
        nll = math.log(len(orders)) - float(orders.logsumexp(0))
        bound = bound_of(process, network, sequence)
        path_kl = -float(orders.log_softmax(0).mean()) - math.log(len(orders))
        assert bound >= nll - 1e-12
        assert abs(bound - nll - path_kl) < 1e-9
        assert length == 1 or path_kl > 0


@pytest.mark.parametrize("length", [1, 2, 3])
def test_bound_exceeds_the_nll_by_the_path_kl(length: int) -> None:
    bound_exceeds_the_nll_by_the_path_kl(length)


def test_the_sampler_tends_to_the_law_of_all_orders() -> None:
    """The p of the law above is what the sampler draws: its enumerated law comes near as 1 / steps."""
    process, network = MixtureFlow(VOCABULARY).double(), Tabular(2)
    law = ToyLaw(size=3, length=2)
    wanted = torch.tensor([float(log_orders(network, tuple(row)).exp().mean()) for row in law.sequences.tolist()])
    states = law.states("mask")
    gaps = []
    for steps in (32, 64, 128):
        now = (states == MASK).all(1).double()
        for t, s in process.grid(steps):
            now = now @ kernel_matrix(process, law, network, t, s)
        found = (law.sequences[:, None] == states[None]).all(-1).double() @ now
        gaps.append(float((found - wanted).abs().sum() / 2))
    assert 1.9 < gaps[0] / gaps[1] < 2.1 and 1.9 < gaps[1] / gaps[2] < 2.1


LIMIT = 3


def every_sequence() -> list[tuple[int, ...]]:
    return [s for length in range(LIMIT + 1) for s in itertools.product(range(3), repeat=length)]


def nll_of(process: Autoregressive, network: Network, sequences: list[tuple[int, ...]]) -> Tensor:
    lengths = torch.tensor([len(s) for s in sequences])
    rows = torch.tensor([[*s, *[VOCABULARY.pad] * (LIMIT - len(s))] for s in sequences])
    noise = Noise.start(0, torch.arange(len(rows)))
    return process.likelihood(network, SequenceBatch(rows, Layout.padded(lengths, LIMIT)), noise, 1).nll


def autoregressive_samples_follow_the_nll() -> None:
    """p(x) = exp(-nll), save that at the limit the end is certain; a whole run by chi-square."""
    process, network, draws = Autoregressive(VOCABULARY, limit=LIMIT), neighbours(VOCABULARY, 4, seed=3), 20_000
    sequences = every_sequence()
    chance = dict(zip(sequences, (-nll_of(process, network, sequences)).exp().tolist(), strict=True))
    for s in sequences:
        if len(s) == LIMIT:
            # What goes on beyond the limit stops there.
            row = torch.tensor([[VOCABULARY.bos, *s]])
            chance[s] /= float(network(batch_of(row), None)[0, -1].softmax(-1)[-1])
    assert sum(chance.values()) == pytest.approx(1, abs=1e-9)
    noise = Noise.start(7, torch.arange(draws))
    start = process.prior(torch.zeros(draws, dtype=torch.long), noise)
    rows = Stepwise().sample(process, network, start, noise).tokens
    assert fit(chance, [tuple(row.tolist()) for row in rows]) > 1e-5


def test_autoregressive_samples_follow_the_nll() -> None:
    autoregressive_samples_follow_the_nll()


def loss_estimates_the_bound(source: str) -> None:
    """The training loss is an unbiased estimate of the bound per token: 4 standard errors."""
    law = ToyLaw(seed=4)
    process = MixtureFlow(law.vocabulary, source=source).double()  # type: ignore[arg-type]
    network, repeats = law.network(source), 4000
    for sequence in law.sequences[::4]:
        rows = sequence.expand(repeats, -1)
        found = process.loss(network, batch_of(rows), Noise.start(5, torch.arange(repeats)))
        values = (found.values * found.weights).sum(1)
        assert int(found.count) == rows.numel()
        nodes, weights = np.polynomial.legendre.leggauss(60)
        wanted = 0.0
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            states = law.states(source)
            only = (law.sequences == sequence).all(1)
            chance = law.path(source, float(node), states)[:, only][:, 0]
            kappa = torch.full(states.shape, float(node), dtype=torch.float64)
            clean = batch_of(sequence.expand(len(states), -1))
            wanted += float(
                weight * (chance * process.integrand(network, clean, batch_of(states), kappa)[0].sum(1)).sum()
            )
        assert abs(float(values.mean()) - wanted) < 4 * float(values.std()) / repeats**0.5


@pytest.mark.parametrize("source", ["mask", "uniform"])
def test_loss_estimates_the_bound(source: str) -> None:
    loss_estimates_the_bound(source)


# --- planted faults ---------------------------------------------------------------------


def _unweighted(patch: pytest.MonkeyPatch) -> None:
    """The 1 / (1 - kappa) is lost."""
    true = MixtureFlow.integrand

    def changed(self: MixtureFlow, network: Network, clean: SequenceBatch, noisy: SequenceBatch, kappa: Tensor):
        value, *rest = true(self, network, clean, noisy, kappa)
        return (value * (1 - kappa), *rest)

    patch.setattr(MixtureFlow, "integrand", changed)


def _shown_sites_count(patch: pytest.MonkeyPatch) -> None:
    """SUBS is lost: sites that already show their token are paid for too."""
    true = MixtureFlow.integrand

    def changed(self: MixtureFlow, network: Network, clean: SequenceBatch, noisy: SequenceBatch, kappa: Tensor):
        hidden = SequenceBatch(torch.full_like(clean.tokens, MASK), clean.layout)
        value = true(self, lambda _, time: network(noisy, time), clean, hidden, kappa)[0]
        return (value, *true(self, network, clean, noisy, kappa)[1:])

    patch.setattr(MixtureFlow, "integrand", changed)


def _time_of_training_shifted(patch: pytest.MonkeyPatch) -> None:
    """The data are shown for another time than the weight's."""
    true = MixtureFlow.corrupt
    patch.setattr(MixtureFlow, "corrupt", lambda self, batch, time, noise: true(self, batch, time.sqrt(), noise))


def _end_is_free(patch: pytest.MonkeyPatch) -> None:
    true = Autoregressive._cross_entropy

    def changed(self: Autoregressive, network: Network, shifted: SequenceBatch) -> Tensor:
        return true(self, network, shifted).masked_fill(shifted.targets == self.vocabulary.eos, 0.0)

    patch.setattr(Autoregressive, "_cross_entropy", changed)


def _no_limit(patch: pytest.MonkeyPatch) -> None:
    true = Autoregressive.append
    patch.setattr(Autoregressive, "append", lambda self, logits, position: true(self, logits, position - 1))


def _step_too_cold(patch: pytest.MonkeyPatch) -> None:
    true = Autoregressive.append
    patch.setattr(Autoregressive, "append", lambda self, logits, position: true(self, 1.1 * logits, position))


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (_unweighted, lambda: bound_exceeds_the_nll_by_the_path_kl(2)),
        (_shown_sites_count, lambda: bound_exceeds_the_nll_by_the_path_kl(2)),
        (_time_of_training_shifted, lambda: loss_estimates_the_bound("mask")),
        (_time_of_training_shifted, lambda: loss_estimates_the_bound("uniform")),
        (_end_is_free, autoregressive_samples_follow_the_nll),
        (_no_limit, autoregressive_samples_follow_the_nll),
        (_step_too_cold, autoregressive_samples_follow_the_nll),
    ],
)
def test_planted_faults_are_caught(fault, law, monkeypatch: pytest.MonkeyPatch) -> None:
    law()
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()

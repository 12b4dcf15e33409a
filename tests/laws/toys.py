"""Enumerable toys: data laws small enough that every quantity has a closed form."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.processes.base import Likelihood, Network, Process, TokenLoss
from core.processes.mixture_flow import MixtureFlow
from core.processes.transitions.substitute import Substitute
from core.tokenizers.base import Vocabulary


class ToyProcess(Process):
    """What a toy that is only sampled need not say; its network is a closed form."""

    likelihood_kind = "exact"
    attends = MaskSpec("full")

    @property
    def outputs(self) -> int:
        return self.vocabulary.size

    def fit(self, lengths: Tensor, condition: Tensor | None = None) -> None:
        raise NotImplementedError

    def corrupt(self, batch: SequenceBatch, time: Tensor, noise: Noise) -> SequenceBatch:
        raise NotImplementedError

    def loss(self, network: Network, batch: SequenceBatch, noise: Noise) -> TokenLoss:
        raise NotImplementedError

    def lengths(self, noise: Noise, allowed: tuple[int, ...], condition: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def likelihood(self, network: Network, batch: SequenceBatch, noise: Noise, points: int) -> Likelihood:
        raise NotImplementedError


def batch_of(rows: Tensor, fixed: Tensor | None = None) -> SequenceBatch:
    """Equally long sequences."""
    layout = Layout.padded(torch.full((len(rows),), rows.shape[1]), rows.shape[1])
    return SequenceBatch(rows, layout, fixed=fixed)


def neighbours(vocabulary: Vocabulary, outputs: int, seed: int = 0) -> Network:
    """A network for sequences of any length: logits from a site's id and the one before it."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(vocabulary.total, vocabulary.total, outputs, dtype=torch.float64, generator=generator)

    def answer(batch: SequenceBatch, time: Tensor | None) -> Tensor:
        sites = batch.tokens.flatten(1)
        before = torch.nn.functional.pad(sites, (1, 0), value=vocabulary.pad)[:, :-1]
        return table[before, sites]

    return answer


class ToyLaw:
    """A random law q over all V^L sequences, with its exact posteriors."""

    def __init__(self, size: int = 3, length: int = 2, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.vocabulary = Vocabulary(size)
        self.sequences = torch.tensor(list(itertools.product(range(size), repeat=length)))
        weights = torch.rand(len(self.sequences), generator=generator, dtype=torch.float64) ** 2 + 0.01
        self.q = weights / weights.sum()

    @property
    def entropy(self) -> float:
        return float(-(self.q * self.q.log()).sum())

    def states(self, source: str) -> Tensor:
        """Every x_t that the path can show."""
        tokens = [*range(self.vocabulary.size)] + ([self.vocabulary.mask] if source == "mask" else [])
        return torch.tensor(list(itertools.product(tokens, repeat=self.sequences.shape[1])))

    def path(self, source: str, kappa: float | Tensor, shown: Tensor) -> Tensor:
        """p_t(x_t | x1) for each shown state and each data sequence, `[T, Q]`."""
        same = shown[:, None, :] == self.sequences[None]
        if source == "mask":
            masked = shown[:, None, :] == self.vocabulary.mask
            site = (1 - kappa) * masked.double() + kappa * same.double()
        else:
            site = kappa * same.double() + (1 - kappa) / self.vocabulary.size
        return site.prod(-1)

    def marginal(self, source: str, kappa: float, shown: Tensor) -> Tensor:
        """p_t(x_t), `[T]`."""
        return self.path(source, kappa, shown) @ self.q

    def network(self, source: str):
        """The exact posterior P(x1_i | x_t) as a network."""

        def answer(batch: SequenceBatch, time: Tensor | None) -> Tensor:
            shown = batch.tokens.flatten(1)
            # Equal questions are answered once.
            kappa = torch.full(shown.shape, 0.5).double() if time is None else time.double()
            asked, place = torch.unique(torch.cat([shown.double(), kappa], 1), dim=0, return_inverse=True)
            states, kappa = asked.chunk(2, dim=1)
            weight = self.path(source, kappa[:, None], states.long()) * self.q
            if source == "mask":
                # At kappa 0 or 1 some states have no mass; their posterior is never used.
                weight = weight + 1e-300
            hot = torch.nn.functional.one_hot(self.sequences, self.vocabulary.size).double()
            posterior = torch.einsum("tq,qlv->tlv", weight / weight.sum(1, keepdim=True), hot)
            return posterior.clamp_min(1e-300).log()[place]

        return answer


def kernel_matrix(
    process: MixtureFlow, law: ToyLaw, network, t: float, s: float, fixed: Tensor | None = None
) -> Tensor:
    """The one-step kernel over all states, `[T, T]`, from the transition's own law."""
    states = law.states(process.source)
    batch = batch_of(states, None if fixed is None else fixed.expand(states.shape))
    transition = process.transition(network, batch, t, s)
    assert isinstance(transition, Substitute)
    jump, log_posterior = transition.law(batch, torch.arange(len(states)))
    site = site_kernel(states, jump, log_posterior.exp(), law.vocabulary.total)
    result = torch.ones(len(states), len(states), dtype=torch.float64)
    for place in range(states.shape[1]):
        result *= site[:, place, :][:, states[:, place]]
    return result


def site_kernel(states: Tensor, jump: Tensor, posterior: Tensor, total: int) -> Tensor:
    """P(x_s_i = v | x_t), `[T, L, total ids]`."""
    kernel = torch.zeros(*states.shape, total, dtype=torch.float64)
    kernel[..., : posterior.shape[-1]] = jump[..., None] * posterior
    return kernel.scatter_add(-1, states[..., None], (1 - jump)[..., None])

"""Discrete flow matching on mixture paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.data.noise import Noise, Purpose
from core.data.sequence_batch import SOURCE, Memory, SequenceBatch
from core.errors import UserError
from core.processes._mixture_path import MixturePath
from core.processes._sites import moving, per_site
from core.processes.base import Network, TokenLoss, flat
from core.processes.schedules.base import Schedule
from core.registry import Paper
from core.tokenizers.base import Vocabulary


class MixtureFlow(MixturePath):
    """Flow matching: a site that moves between two times takes its data token, and keeps it.

    The network estimates P(x1 | x_t), a point mass at a final site whatever it says (SUBS). source: also
    `coupled`, which starts from the sequence that the memory `source` pairs with each one, token by token
    (`begin`); the bound is that of the data given it. The bound is the entropy at the exact posterior where
    x0 is certain (mask, coupled with a network that reads the memory, one token); else it is loose.

    loss: `kl`, the generalised Kullback-Leibler bound, or `cross_entropy` with the same
    optimum. step: `exact`, the conditional kernel that jumps with probability
    (kappa(s) - kappa(t)) / (1 - kappa(t)), or `euler`, which approximates it, for reference.
    self_conditioning: the network also reads the posterior that it gave last (Chen et al., 2022). In
    training that is its answer without one, for half of the sequences; sampling takes it along. The
    likelihood is that of the network without.
    """

    paper = Paper(
        "S004",
        "Discrete Flow Matching",
        "2407.15595",
        "exact conditional kernel as default step; loss per valid token; kappa as the network's time; "
        "the corrector walks back by the exact kernel of the path and is finite at t = 0",
    )

    def __init__(
        self,
        vocabulary: Vocabulary,
        source: Literal["mask", "uniform", "marginal", "coupled"] | Sequence[float] = "mask",
        schedule: Schedule | None = None,
        loss: Literal["kl", "cross_entropy"] = "kl",
        step: Literal["exact", "euler"] = "exact",
        limit: int = 100,
        support: Bool[Tensor, "F V"] | None = None,
        self_conditioning: bool = False,
    ) -> None:
        for value, known in ((loss, ("kl", "cross_entropy")), (step, ("exact", "euler"))):
            if value not in known:
                raise ValueError(f"{value!r} is none of {', '.join(known)}")
        super().__init__(vocabulary, source, schedule, limit, support)
        self.objective, self.step, self.self_conditioning = loss, step, self_conditioning

    @property
    def recalls(self) -> bool:
        return self.self_conditioning

    @property
    def pairs(self) -> bool:
        return self.start.paired

    def prior(self, lengths: Int[Tensor, " N"], noise: Noise) -> SequenceBatch:
        if self.pairs:
            raise UserError("a coupled source starts from given sequences, not from a length: use begin")
        return super().prior(lengths, noise)

    def begin(self, sources: SequenceBatch) -> SequenceBatch:
        """Given sequences at t = 0 of a coupled source, each paired with itself; the rest is kept."""
        pair = Memory(replace(sources, memories={}), torch.arange(sources.layout.count, device=sources.tokens.device))
        layout = sources.layout.masked(self.attends)
        return replace(sources, layout=layout, memories={**sources.memories, SOURCE: pair})

    # --- training -----------------------------------------------------------------------

    def _time(self, place: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        """The place is kappa."""
        return self.schedule.inverse(place)

    def integrand(
        self, network: Network, clean: SequenceBatch, noisy: SequenceBatch, place: Float[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        """The integrand of the generalised KL in d kappa."""
        data, shown = flat(clean.tokens), flat(noisy.tokens)
        counted = flat(moving(clean)) & self.start.possible(noisy)
        log_posterior = self._log_answer(network, noisy, place)
        cross_entropy = -log_posterior.gather(-1, torch.where(counted, data, 0)[..., None])[..., 0]
        known = counted & (shown < self.vocabulary.size)
        present = log_posterior.gather(-1, torch.where(known, shown, 0)[..., None])[..., 0].exp()
        present = torch.where(known, present, 0.0)
        value = torch.where(shown == data, 1 - present, cross_entropy - present)
        zero = torch.zeros_like(value)
        return torch.where(counted, value / (1 - place), zero), torch.where(counted, cross_entropy, zero), counted

    def loss(self, network: Network, batch: SequenceBatch, noise: Noise) -> TokenLoss:
        noisy, place = self._training_draw(batch, noise)
        if self.self_conditioning:
            recalled = per_site(batch, noise.uniform(1, Purpose.TIME, lane=1)) < 0.5
            with torch.no_grad():
                said = self._log_answer(network, noisy, place).exp()
            noisy = replace(noisy, estimate=said * recalled[..., None])
        value, cross_entropy, counted = self.integrand(network, batch, noisy, place)
        if self.objective == "kl":
            return self._per_token(batch, value)
        return TokenLoss(cross_entropy, counted.to(cross_entropy), counted.sum().clamp_min(1))

    # --- step ---------------------------------------------------------------------------

    def _jump(self, batch: SequenceBatch, t: Float[Tensor, "B S"], s: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        kappa = self.schedule.kappa(t)
        left = (1 - kappa).clamp_min(torch.finfo(kappa.dtype).tiny)
        if self.step == "exact":
            chance = (self.schedule.kappa(s) - kappa) / left
        else:
            chance = -torch.expm1(-(s - t) * self.schedule.derivative(t) / left)
        # The last step leaves nothing of the source, with either kernel.
        return torch.where(s >= 1, 1.0, chance.clamp(0, 1))

    def _log_goal(
        self, network: Network, batch: SequenceBatch, t: Float[Tensor, "B S"], s: Float[Tensor, "B S"]
    ) -> Float[Tensor, "B S V"]:
        return self._log_answer(network, batch, self.schedule.kappa(t))

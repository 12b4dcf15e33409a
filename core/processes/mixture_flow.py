"""Discrete flow matching on mixture paths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.data.noise import Noise, Purpose
from core.data.sequence_batch import Memory, SequenceBatch
from core.errors import UserError
from core.processes._length import LengthPrior
from core.processes._sites import per_site, site_uniform
from core.processes._source import PAIR, PairedSource, build_source
from core.processes.base import Likelihood, Network, Process, TokenLoss, flat
from core.processes.schedules.base import Schedule
from core.processes.schedules.polynomial import Polynomial
from core.processes.transitions.substitute import Substitute
from core.registry import Paper
from core.tokenizers.base import Vocabulary


class MixtureFlow(Process):
    """Each site shows its data token with probability kappa(t), else a token of the source.

    source: `mask` starts from the mask token; `uniform`, `marginal` (the training unigram) and a
    list of V probabilities draw each site on its own; `coupled` starts from the sequence that the
    memory `source` pairs with each one, token by token (`begin`), and the bound is that of the
    data given it. The network estimates P(x1 | x_t). A site whose token x0 cannot show is final,
    and P is a point mass there whatever the network says (SUBS). With the mask source the network
    sees no time, else it sees kappa(t), not t, so that a trained network serves every schedule; a
    fixed site's is 1. The bound is the entropy at the exact posterior where x0 is certain (mask,
    coupled with a network that reads the memory, one token); else it is loose.

    loss: `kl`, the generalised Kullback-Leibler bound, or `cross_entropy` with the same
    optimum. step: `exact`, the conditional kernel that jumps with probability
    (kappa(s) - kappa(t)) / (1 - kappa(t)), or `euler`, which approximates it, for reference.
    support: which of V tokens each field may take, `[F, V]`.
    limit: largest length the length prior covers.
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
    likelihood_kind = "bound"
    attends = MaskSpec("full")

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
        super().__init__(vocabulary, limit)
        for value, known in ((loss, ("kl", "cross_entropy")), (step, ("exact", "euler"))):
            if value not in known:
                raise ValueError(f"{value!r} is none of {', '.join(known)}")
        self.source = source if isinstance(source, str) else "given"
        self.start, self.objective, self.step = build_source(source, vocabulary, support), loss, step
        self.schedule = schedule or Polynomial()
        self.length_prior = LengthPrior(limit)
        self.support, self.self_conditioning = support, self_conditioning

    @property
    def timed(self) -> bool:
        return self.start.timed

    @property
    def recalls(self) -> bool:
        return self.self_conditioning

    @property
    def outputs(self) -> int:
        return self.vocabulary.size

    def fit(self, lengths: Int[Tensor, " N"]) -> None:
        self.refuse_long(lengths)
        self.length_prior.fit(lengths)

    def fit_tokens(self, counts: Int[Tensor, " V"]) -> None:
        self.start.fit(counts)

    def lengths(self, noise: Noise, allowed: tuple[int, ...]) -> Int[Tensor, " N"]:
        return self.length_prior.draw(noise, allowed)

    # --- path ---------------------------------------------------------------------------

    def _valid(self, batch: SequenceBatch) -> Bool[Tensor, "B S"]:
        return batch.layout.valid.repeat_interleave(batch.fields, 1)

    def corrupt(self, batch: SequenceBatch, time: Float[Tensor, "B S"], noise: Noise) -> SequenceBatch:
        self.start.require(batch)
        hidden = site_uniform(batch, noise, Purpose.CORRUPT) >= self.schedule.kappa(time)
        return replace(self._redrawn(batch, hidden, noise), targets=batch.tokens)

    def _redrawn(self, batch: SequenceBatch, sites: Bool[Tensor, "B S"], noise: Noise) -> SequenceBatch:
        """x0 at those of `sites` that may change."""
        chosen = sites & self._free(batch)
        mixed = torch.where(chosen, self.start.draw(batch, noise), flat(batch.tokens))
        return replace(batch, tokens=mixed.reshape(batch.tokens.shape))

    def prior(self, lengths: Int[Tensor, " N"], noise: Noise) -> SequenceBatch:
        if isinstance(self.start, PairedSource):
            raise UserError("a coupled source starts from given sequences, not from a length: use begin")
        width = int(lengths.max()) if len(lengths) else 0
        layout = Layout.padded(lengths, width, self.attends)
        fields = () if self.support is None else (len(self.support),)
        tokens = torch.full((len(lengths), width, *fields), self.vocabulary.pad, device=lengths.device)
        batch = SequenceBatch(tokens, layout)
        return self._redrawn(batch, self._valid(batch), noise)

    def begin(self, sources: SequenceBatch) -> SequenceBatch:
        """Given sequences at t = 0 of a coupled source, each paired with itself; the rest is kept."""
        pair = Memory(replace(sources, memories={}), torch.arange(sources.layout.count, device=sources.tokens.device))
        layout = sources.layout.masked(self.attends)
        return replace(sources, layout=layout, memories={**sources.memories, PAIR: pair})

    def renoise(
        self, batch: SequenceBatch, t: float, s: float, strength: float, noise: Noise
    ) -> tuple[SequenceBatch, float]:
        """Each free site goes back to x0 with probability 1 - exp(-strength (kappa(s) - kappa(t))).

        That is the path at kappa(t) times the share that stays, exactly and for each data sequence. In
        small steps sites leave the data at the rate strength d kappa and reach it at (1 + strength
        kappa) / (1 - kappa) d kappa: the forward velocity u plus c (u - backward), c = strength kappa.
        """
        before, after = (float(self.schedule.kappa(torch.tensor(x, dtype=torch.float64))) for x in (t, s))
        lost = -math.expm1(-strength * (after - before))
        gone = site_uniform(batch, noise, Purpose.CORRUPT) < lost
        earlier = self.schedule.inverse(torch.tensor(before * (1 - lost), dtype=torch.float64))
        return self._redrawn(batch, gone, noise), float(earlier)

    # --- posterior ----------------------------------------------------------------------

    def _log_posterior(
        self, network: Network, batch: SequenceBatch, kappa: Float[Tensor, "B S"]
    ) -> Float[Tensor, "B S V"]:
        """log P(x1 | x_t), with what is known about each site enforced."""
        if batch.fixed is not None:
            kappa = torch.where(flat(batch.fixed), 1.0, kappa)
        logits = network(batch, kappa if self.timed else None)
        if self.support is not None:
            repeats = logits.shape[1] // len(self.support)
            allowed = self.support.to(logits.device).repeat(repeats, 1)
            logits = logits.masked_fill(~allowed, -torch.inf)
        return logits.log_softmax(-1)

    def _free(self, batch: SequenceBatch) -> Bool[Tensor, "B S"]:
        valid = self._valid(batch)
        return valid if batch.fixed is None else valid & ~flat(batch.fixed)

    def _settled(self, batch: SequenceBatch) -> Int[Tensor, "B S"]:
        final = ~(self._free(batch) & self.start.possible(batch))
        return torch.where(final & self._valid(batch), flat(batch.tokens), -1)

    # --- training and likelihood --------------------------------------------------------

    def integrand(
        self, network: Network, clean: SequenceBatch, noisy: SequenceBatch, kappa: Float[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        """Integrand of the generalised KL in d kappa, cross-entropy, and the sites that count."""
        data, shown = flat(clean.tokens), flat(noisy.tokens)
        counted = self._free(clean) & self.start.possible(noisy)
        log_posterior = self._log_posterior(network, noisy, kappa)
        cross_entropy = -log_posterior.gather(-1, torch.where(counted, data, 0)[..., None])[..., 0]
        known = counted & (shown < self.vocabulary.size)
        present = log_posterior.gather(-1, torch.where(known, shown, 0)[..., None])[..., 0].exp()
        present = torch.where(known, present, 0.0)
        value = torch.where(shown == data, 1 - present, cross_entropy - present)
        zero = torch.zeros_like(value)
        return torch.where(counted, value / (1 - kappa), zero), torch.where(counted, cross_entropy, zero), counted

    def loss(self, network: Network, batch: SequenceBatch, noise: Noise) -> TokenLoss:
        # The batch covers (0, 1) evenly, from a place drawn anew: batches are ordered by length, so a
        # row that always had the same part of (0, 1) would tie a sequence's time to its length.
        count = batch.layout.count
        shift = noise.uniform(1, Purpose.TIME)[:1]
        strata = torch.arange(count, device=shift.device)[:, None] / max(count, 1) + shift
        kappa = per_site(batch, strata.remainder(1.0)).clamp_max(1 - 1e-4)
        noisy = self.corrupt(batch, self.schedule.inverse(kappa), noise)
        if self.self_conditioning:
            recalled = per_site(batch, noise.uniform(1, Purpose.TIME, lane=1)) < 0.5
            with torch.no_grad():
                said = self._log_posterior(network, noisy, kappa).exp()
            noisy = replace(noisy, estimate=said * recalled[..., None])
        integrand, cross_entropy, counted = self.integrand(network, batch, noisy, kappa)
        valid = self._valid(batch).sum().clamp_min(1)
        if self.objective == "kl":
            return TokenLoss(integrand, torch.ones_like(integrand), valid)
        return TokenLoss(cross_entropy, counted.to(cross_entropy), counted.sum().clamp_min(1))

    def likelihood(self, network: Network, batch: SequenceBatch, noise: Noise, points: int) -> Likelihood:
        """The bound by stratified quadrature in kappa, in two independent halves for its error."""
        halves = []
        for half in range(2):
            shift = noise.uniform(points, Purpose.TIME, lane=half)
            total = torch.zeros(batch.layout.count, dtype=torch.float64, device=batch.tokens.device)
            for point in range(points // 2):
                kappa = per_site(batch, (point + shift[:, point : point + 1]) / (points // 2))
                noisy = self.corrupt(batch, self.schedule.inverse(kappa), noise.at(half * points + point + 1))
                integrand = self.integrand(network, batch, noisy, kappa)[0].double()
                owners = batch.layout.owners.clamp_min(0).repeat_interleave(batch.fields, 1)
                total.index_add_(0, owners.flatten(), integrand.flatten())
            halves.append(total / (points // 2))
        bound = (halves[0] + halves[1]) / 2
        # A paired sequence tells the length.
        if not isinstance(self.start, PairedSource):
            bound = bound + self.length_prior.nll(batch.layout.lengths)
        error = (halves[0] - halves[1]).abs() / 2
        return Likelihood(bound, "bound", error, batch.layout.lengths + 1)

    # --- sampling -----------------------------------------------------------------------

    def grid(self, steps: int) -> list[tuple[float, float]]:
        """Equal steps in kappa, the time in which every site is equally likely to move."""
        marks = self.schedule.inverse(torch.linspace(0, 1, steps + 1, dtype=torch.float64)).tolist()
        marks[0], marks[-1] = 0.0, 1.0
        return list(zip(marks[:-1], marks[1:], strict=True))

    def transition(self, network: Network, batch: SequenceBatch, t: float | Tensor, s: float | Tensor) -> Substitute:
        shape = flat(batch.tokens).shape
        t_site, s_site = (
            torch.as_tensor(value, dtype=torch.float64, device=batch.tokens.device).expand(shape) for value in (t, s)
        )
        kappa = self.schedule.kappa(t_site)
        settled = self._settled(batch)
        jump = torch.where((settled < 0) & self._valid(batch), self._jump(t_site, s_site), 0.0)

        def posterior(rows: Int[Tensor, " R"]) -> Float[Tensor, "R S V"]:
            return self._log_posterior(network, batch.select(rows), kappa[rows])

        return Substitute(posterior, jump, settled, recalled=self.self_conditioning)

    def _jump(self, t: Float[Tensor, "B S"], s: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        kappa = self.schedule.kappa(t)
        left = (1 - kappa).clamp_min(torch.finfo(kappa.dtype).tiny)
        if self.step == "exact":
            chance = (self.schedule.kappa(s) - kappa) / left
        else:
            chance = -torch.expm1(-(s - t) * self.schedule.derivative(t) / left)
        # The last step leaves nothing of the source, with either kernel.
        return torch.where(s >= 1, 1.0, chance.clamp(0, 1))

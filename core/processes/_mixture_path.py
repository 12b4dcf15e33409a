"""What processes share whose sites show, each on its own, a data token or one of noise."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.data.conditions import Conditions
from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.data.noise import Noise, Purpose
from core.data.sequence_batch import SequenceBatch
from core.processes._length import LengthPrior
from core.processes._quadrature import averaged, evenly
from core.processes._sites import moving, per_sequence, per_site, site_uniform, valid_sites
from core.processes._source import build_source
from core.processes.base import Likelihood, Network, Process, TokenLoss, flat
from core.processes.schedules.base import Schedule
from core.processes.schedules.polynomial import Polynomial
from core.processes.transitions.substitute import Substitute
from core.tokenizers.base import Vocabulary


class MixturePath(Process):
    """At time t a site shows its data token x1 with probability kappa(t), else x0.

    x0 comes from the source: `mask` is the mask token; `uniform`, `marginal` (the training unigram) and
    a list of V probabilities draw each site on its own. A site whose token x0 cannot show is final. With
    the mask source the network sees no time, else it sees kappa(t), not t, so that a trained network
    serves every schedule; a fixed site's is 1. Lengths have a prior of their own.

    Members say how the times hang together: what one step does, and what it costs to be wrong about it.
    That cost is `integrand`, along a coordinate of the path, the place, that runs from 0 to 1.

    support: which of V tokens each field may take, `[F, V]`. limit: largest length the length prior covers.
    """

    likelihood_kind = "bound"
    attends = MaskSpec("full")
    # How far training goes along the path: in kappa, costs grow as 1 / (1 - kappa).
    _latest: ClassVar[float] = 1 - 1e-4

    def __init__(
        self,
        vocabulary: Vocabulary,
        source: str | Sequence[float],
        schedule: Schedule | None,
        limit: int,
        support: Bool[Tensor, "F V"] | None,
    ) -> None:
        super().__init__(vocabulary, limit)
        self.source = source if isinstance(source, str) else "given"
        self.start, self.support = build_source(source, vocabulary, support), support
        self.schedule = schedule or Polynomial()
        self.length_prior = LengthPrior(limit)

    @property
    def timed(self) -> bool:
        return self.start.timed

    @property
    def outputs(self) -> int:
        return self.vocabulary.size

    def condition_on(self, conditions: Conditions) -> None:
        self.length_prior = LengthPrior(self.limit, conditions)

    def fit(self, lengths: Int[Tensor, " N"], condition: Float[Tensor, "N C"] | None = None) -> None:
        self.refuse_long(lengths)
        self.length_prior.fit(lengths, condition)

    def fit_tokens(self, counts: Int[Tensor, " V"]) -> None:
        self.start.fit(counts)

    def lengths(
        self, noise: Noise, allowed: tuple[int, ...], condition: Float[Tensor, "N C"] | None = None
    ) -> Int[Tensor, " N"]:
        return self.length_prior.draw(noise, allowed, condition)

    # --- path ---------------------------------------------------------------------------

    def corrupt(self, batch: SequenceBatch, time: Float[Tensor, "B S"], noise: Noise) -> SequenceBatch:
        self.start.require(batch)
        hidden = site_uniform(batch, noise, Purpose.CORRUPT) >= self.schedule.kappa(time)
        return replace(self._redrawn(batch, hidden, noise), targets=batch.tokens)

    def _redrawn(self, batch: SequenceBatch, sites: Bool[Tensor, "B S"], noise: Noise) -> SequenceBatch:
        """x0 at those of `sites` that may change."""
        chosen = sites & flat(moving(batch))
        mixed = torch.where(chosen, self.start.draw(batch, noise), flat(batch.tokens))
        return replace(batch, tokens=mixed.reshape(batch.tokens.shape))

    def prior(self, lengths: Int[Tensor, " N"], noise: Noise) -> SequenceBatch:
        width = int(lengths.max()) if len(lengths) else 0
        layout = Layout.padded(lengths, width, self.attends)
        fields = () if self.support is None else (len(self.support),)
        tokens = torch.full((len(lengths), width, *fields), self.vocabulary.pad, device=lengths.device)
        batch = SequenceBatch(tokens, layout)
        return self._redrawn(batch, valid_sites(batch), noise)

    def renoise(
        self, batch: SequenceBatch, t: float, s: float, strength: float, noise: Noise
    ) -> tuple[SequenceBatch, float]:
        """Each free site goes back to x0 with probability 1 - exp(-strength (kappa(s) - kappa(t))).

        That is the path at kappa(t) times the share that stays, exactly and for each data sequence. In
        small steps sites leave the data at the rate strength d kappa, and what a step brings makes up for it.
        """
        before, after = (float(self.schedule.kappa(torch.tensor(x, dtype=torch.float64))) for x in (t, s))
        lost = -math.expm1(-strength * (after - before))
        gone = site_uniform(batch, noise, Purpose.CORRUPT) < lost
        earlier = self.schedule.inverse(torch.tensor(before * (1 - lost), dtype=torch.float64))
        return self._redrawn(batch, gone, noise), float(earlier)

    # --- network ------------------------------------------------------------------------

    def _log_answer(
        self, network: Network, batch: SequenceBatch, kappa: Float[Tensor, "B S"]
    ) -> Float[Tensor, "B S V"]:
        """Log-probabilities that the network gives the tokens of each site's field."""
        if batch.fixed is not None:
            kappa = torch.where(flat(batch.fixed), 1.0, kappa)
        logits = network(batch, kappa if self.timed else None)
        if self.support is not None:
            repeats = logits.shape[1] // len(self.support)
            allowed = self.support.to(logits.device).repeat(repeats, 1)
            logits = logits.masked_fill(~allowed, -torch.inf)
        return logits.log_softmax(-1)

    def _settled(self, batch: SequenceBatch) -> Int[Tensor, "B S"]:
        """The tokens of final sites, -1 elsewhere."""
        final = ~(flat(moving(batch)) & self.start.possible(batch))
        return torch.where(final & valid_sites(batch), flat(batch.tokens), -1)

    # --- training and likelihood --------------------------------------------------------

    @abstractmethod
    def _time(self, place: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        """The time at a place."""

    @abstractmethod
    def integrand(
        self, network: Network, clean: SequenceBatch, noisy: SequenceBatch, place: Float[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B S"], Bool[Tensor, "B S"]]:
        """What each site adds to the bound for each unit of the place, the cross-entropy of its data
        token, and the sites that count."""

    def _training_draw(self, batch: SequenceBatch, noise: Noise) -> tuple[SequenceBatch, Float[Tensor, "B S"]]:
        """The batch as the path shows it at a place, and that place."""
        place = per_site(batch, evenly(noise)).clamp_max(self._latest)
        return self.corrupt(batch, self._time(place), noise), place

    def _per_token(self, batch: SequenceBatch, values: Float[Tensor, "B S"]) -> TokenLoss:
        return TokenLoss(values, torch.ones_like(values), valid_sites(batch).sum().clamp_min(1))

    def loss(self, network: Network, batch: SequenceBatch, noise: Noise) -> TokenLoss:
        noisy, place = self._training_draw(batch, noise)
        return self._per_token(batch, self.integrand(network, batch, noisy, place)[0])

    def likelihood(self, network: Network, batch: SequenceBatch, noise: Noise, points: int) -> Likelihood:
        """The bound by stratified quadrature over the place."""

        def cost(share: Float[Tensor, "N 1"], here: Noise) -> Float[Tensor, " N"]:
            place = per_site(batch, share)
            noisy = self.corrupt(batch, self._time(place), here)
            return per_sequence(batch, self.integrand(network, batch, noisy, place)[0])

        bound, error = averaged(cost, noise, points)
        if not self.pairs:
            bound = bound + self.length_prior.nll(batch.layout.lengths, batch.condition)
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
        settled = self._settled(batch)
        jump = torch.where((settled < 0) & valid_sites(batch), self._jump(batch, t_site, s_site), 0.0)

        def goal(rows: Int[Tensor, " R"]) -> Float[Tensor, "R S V"]:
            return self._log_goal(network, batch.select(rows), t_site[rows], s_site[rows])

        blank = flat(batch.tokens) >= self.vocabulary.size
        return Substitute(goal, jump, settled, recalled=self.recalls, blank=blank)

    @abstractmethod
    def _jump(self, batch: SequenceBatch, t: Float[Tensor, "B S"], s: Float[Tensor, "B S"]) -> Float[Tensor, "B S"]:
        """The probability that a site moves between t and s, where it may."""

    @abstractmethod
    def _log_goal(
        self, network: Network, batch: SequenceBatch, t: Float[Tensor, "B S"], s: Float[Tensor, "B S"]
    ) -> Float[Tensor, "B S V"]:
        """Unnormalised log-probabilities of where a site goes that moves."""

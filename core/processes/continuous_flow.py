"""Straight-line flow matching on sequences of numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.data.conditions import Conditions
from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.data.noise import Noise, Purpose, normal
from core.data.sequence_batch import SequenceBatch
from core.errors import UserError
from core.processes._length import LengthPrior
from core.processes._quadrature import evenly
from core.processes._sites import moving, per_place, per_sequence, site_uniform
from core.processes.base import Likelihood, Network, Process, TokenLoss
from core.processes.transitions.drift import Drift
from core.registry import Paper
from core.tokenizers.base import Vocabulary

# Up to so many numbers in the longest sequence the divergence is the exact trace.
_EXACT = 64
# The classical Runge-Kutta method of fourth order: where in the step a stage stands, and its weight.
_STAGES = ((0.0, 1 / 6), (0.5, 1 / 3), (0.5, 1 / 3), (1.0, 1 / 6))


class ContinuousFlow(Process):
    """x_t = (1 - t) x0 + t x1 for numbers `[B, L, C]`; the network estimates E[x1 - x0 | x_t].

    x0 is normal with the mean and the deviation of each channel in training, so that every x_t is in
    data units; the network sees and answers standardised numbers. The loss is the squared error,
    averaged over channels and over the tokens with a free number. What is fixed holds data at every
    time, and the time of a place that is fixed as a whole is 1.

    Likelihood: the density (nats, in data units) that the flow has at the free numbers, by the
    instantaneous change of variables, and the length's probability. Integrated backwards in steps of
    order four, once with twice as many steps as before; the divergence is the exact trace where
    limit x channels is at most 64, else two Rademacher probes (Hutchinson). `error` is the difference
    between both step sizes, plus the probes' standard error. It is that of the flow itself, to which
    a sampler's law tends as its steps grow.

    channels: numbers a place holds. integrator: `heun` takes steps of second order and asks the
    network twice in each, `euler` once. limit: largest length the length prior covers.
    """

    paper = Paper(
        "ours",
        "Flow Matching for Generative Modeling",
        "2210.02747",
        "straight paths without a least noise, as in rectified flow (2209.03003) before any reflow; "
        "the source has the moments of the data; for sequences of any length",
    )
    likelihood_kind = "estimate"
    attends = MaskSpec("full")
    writes = "numbers"

    location: Tensor
    unit: Tensor

    def __init__(
        self,
        vocabulary: Vocabulary,
        channels: int = 1,
        integrator: Literal["heun", "euler"] = "heun",
        limit: int = 100,
    ) -> None:
        super().__init__(vocabulary, limit)
        if channels < 1:
            raise ValueError(f"channels {channels}: a place holds at least one number")
        if integrator not in ("heun", "euler"):
            raise ValueError(f"{integrator!r} is none of heun, euler")
        self.channels, self.integrator = channels, integrator
        self.length_prior = LengthPrior(limit)
        self.register_buffer("location", torch.zeros(channels, dtype=torch.float64))
        self.register_buffer("unit", torch.ones(channels, dtype=torch.float64))

    @property
    def timed(self) -> bool:
        return True

    @property
    def outputs(self) -> int:
        return self.channels

    def condition_on(self, conditions: Conditions) -> None:
        self.length_prior = LengthPrior(self.limit, conditions)

    def fit(self, lengths: Int[Tensor, " N"], condition: Float[Tensor, "N C"] | None = None) -> None:
        self.refuse_long(lengths)
        self.length_prior.fit(lengths, condition)

    def fit_numbers(self, numbers: Float[Tensor, "T C"]) -> None:
        self._require(numbers)
        deviation, mean = torch.std_mean(numbers.double(), 0, correction=0)
        for channel in range(self.channels):
            if not bool(numbers[:, channel].isfinite().all()):
                raise UserError(f"channel {channel + 1} of the training data holds NaN or infinity: fill or drop these")
            if not float(deviation[channel]):
                raise UserError(f"channel {channel + 1} of the training data never changes: drop it")
        self.location.copy_(mean)
        self.unit.copy_(deviation)

    def _require(self, numbers: Float[Tensor, "*shape C"]) -> None:
        if numbers.shape[-1] != self.channels:
            raise UserError(
                f"the data have {numbers.shape[-1]} channels, the model {self.channels}: "
                f"train with process.channels={numbers.shape[-1]}"
            )

    def lengths(
        self, noise: Noise, allowed: tuple[int, ...], condition: Float[Tensor, "N C"] | None = None
    ) -> Int[Tensor, " N"]:
        return self.length_prior.draw(noise, allowed, condition)

    # --- path ---------------------------------------------------------------------------

    def _source(self, batch: SequenceBatch, noise: Noise) -> Float[Tensor, "B L C"]:
        standard = normal(site_uniform(batch, noise, Purpose.PRIOR)).reshape(batch.tokens.shape)
        return (self.location + self.unit * standard).to(batch.tokens.dtype)

    def corrupt(self, batch: SequenceBatch, time: Float[Tensor, "B L"], noise: Noise) -> SequenceBatch:
        return self._mixed(batch, time, self._source(batch, noise))

    def _mixed(self, batch: SequenceBatch, time: Float[Tensor, "B L"], source: Float[Tensor, "B L C"]) -> SequenceBatch:
        share = time.to(batch.tokens.dtype)[..., None]
        mixed = (1 - share) * source + share * batch.tokens
        return replace(batch, tokens=torch.where(moving(batch), mixed, batch.tokens), targets=batch.tokens)

    def prior(self, lengths: Int[Tensor, " N"], noise: Noise) -> SequenceBatch:
        width = int(lengths.max()) if len(lengths) else 0
        layout = Layout.padded(lengths, width, self.attends)
        empty = SequenceBatch(self.location.new_zeros(len(lengths), width, self.channels), layout)
        return replace(empty, tokens=torch.where(moving(empty), self._source(empty, noise), 0.0))

    def grid(self, steps: int) -> list[tuple[float, float]]:
        """Equal steps in t."""
        return [(step / steps, (step + 1) / steps) for step in range(steps)]

    # --- velocity -----------------------------------------------------------------------

    def _standard(self, batch: SequenceBatch) -> Float[Tensor, "B L C"]:
        """The numbers as the network sees them; padding is 0."""
        self._require(batch.tokens)
        numbers = (batch.tokens - self.location.to(batch.tokens)) / self.unit.to(batch.tokens)
        return torch.where(batch.layout.valid[..., None], numbers, 0.0)

    def _velocity(
        self, network: Network, batch: SequenceBatch, standard: Float[Tensor, "B L C"], time: Float[Tensor, "B L"]
    ) -> Float[Tensor, "B L C"]:
        if batch.fixed is not None:
            time = torch.where(batch.fixed.all(-1), 1.0, time)
        return network(replace(batch, tokens=standard), time).to(standard.dtype)

    def transition(self, network: Network, batch: SequenceBatch, t: float, s: float) -> Drift:
        def velocity(numbers: Float[Tensor, "N L C"], time: float) -> Float[Tensor, "N L C"]:
            there = replace(batch, tokens=numbers)
            when = torch.full(batch.layout.shape, time, dtype=numbers.dtype, device=numbers.device)
            return self.unit.to(numbers) * self._velocity(network, there, self._standard(there), when)

        ahead = (lambda numbers: velocity(numbers, s)) if self.integrator == "heun" else None
        return Drift(velocity(batch.tokens, t), t, s, ahead=ahead)

    # --- training -----------------------------------------------------------------------

    def loss(self, network: Network, batch: SequenceBatch, noise: Noise) -> TokenLoss:
        time, free = per_place(batch, evenly(noise)), moving(batch)
        source = self._source(batch, noise)
        noisy = self._mixed(batch, time, source)
        target = (batch.tokens - source) / self.unit.to(batch.tokens)
        wrong = self._velocity(network, noisy, self._standard(noisy), time.to(target)) - target
        values = torch.where(free, wrong, 0.0).square().sum(-1) / free.sum(-1).clamp_min(1)
        counted = free.any(-1)
        return TokenLoss(values, counted.to(values), counted.sum().clamp_min(1))

    # --- likelihood ---------------------------------------------------------------------

    def likelihood(self, network: Network, batch: SequenceBatch, noise: Noise, points: int) -> Likelihood:
        """The density at the end of a path that `points` evaluations integrate, twelve at least."""
        steps, free = max(1, points // 12), moving(batch)
        exact = self.limit * self.channels <= _EXACT
        coarse, fine = (
            self._traced(network, batch, _units(batch) if exact else _signs(batch, noise), count)
            for count in (steps, 2 * steps)
        )
        scale = per_sequence(batch, torch.where(free, self.unit.log(), 0.0).sum(-1))
        found = []
        for start, traces in (coarse, fine):
            unlikely = torch.where(free, (start.square() + math.log(2 * math.pi)) / 2, 0.0).sum(-1)
            divergence = traces.sum(0) if exact else traces.mean(0)
            found.append(per_sequence(batch, unlikely) + divergence + scale)
        error = (found[0] - found[1]).abs()
        if not exact:
            error = error + (fine[1][0] - fine[1][1]).abs() / 2
        nll = found[1] + self.length_prior.nll(batch.layout.lengths, batch.condition)
        return Likelihood(nll, "estimate", error, batch.layout.lengths + 1)

    def _traced(
        self, network: Network, batch: SequenceBatch, probes: Iterable[Float[Tensor, "B L C"]], steps: int
    ) -> tuple[Float[Tensor, "B L C"], Float[Tensor, "K N"]]:
        """Where the flow that ends in the batch began, and the time integral of probe . J probe for each probe."""
        directions = list(probes)
        here = self._standard(batch).double()
        total = torch.zeros(len(directions), batch.layout.count, dtype=torch.float64, device=here.device)
        for step in range(steps):
            slope, moved = torch.zeros_like(here), torch.zeros_like(here)
            for place, weight in _STAGES:
                time = 1 - (step + place) / steps
                slope, traces = self._slope(network, batch, here - place / steps * slope, time, directions)
                moved, total = moved + weight * slope, total + weight / steps * traces
            here = here - moved / steps
        return here, total

    def _slope(
        self,
        network: Network,
        batch: SequenceBatch,
        standard: Float[Tensor, "B L C"],
        time: float,
        probes: list[Float[Tensor, "B L C"]],
    ) -> tuple[Float[Tensor, "B L C"], Float[Tensor, "K N"]]:
        with torch.enable_grad():
            point = standard.detach().requires_grad_()
            when = torch.full(batch.layout.shape, time, dtype=point.dtype, device=point.device)
            said = self._velocity(network, batch, point, when)
            # What cannot move depends on nothing; the product keeps it in the graph.
            slope = torch.where(moving(batch), said, 0.0 * point)
            traces = [
                per_sequence(batch, (torch.autograd.grad(slope, point, probe, retain_graph=True)[0] * probe).sum(-1))
                for probe in probes
            ]
        none = torch.zeros(0, batch.layout.count, dtype=torch.float64, device=point.device)
        return slope.detach(), torch.stack(traces) if traces else none


def _units(batch: SequenceBatch) -> Iterable[Float[Tensor, "B L C"]]:
    """For each number that a sequence may hold, the direction of that number alone."""
    channels = torch.arange(batch.tokens.shape[-1], device=batch.tokens.device)
    for place in range(batch.layout.longest):
        for channel in channels:
            alone = (batch.layout.offsets == place)[..., None] & (channels == channel)
            yield (alone & moving(batch)).double()


def _signs(batch: SequenceBatch, noise: Noise) -> Iterable[Float[Tensor, "B L C"]]:
    """Two directions of random signs."""
    for probe in range(2):
        uniform = site_uniform(batch, noise.at(probe), Purpose.CORRUPT).reshape(batch.tokens.shape)
        yield torch.where(moving(batch), torch.where(uniform < 0.5, -1.0, 1.0).double(), 0.0)

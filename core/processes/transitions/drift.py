"""Numbers move along a velocity, with noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from core.data.noise import Noise, Purpose, draw, normal
from core.data.sequence_batch import SequenceBatch
from core.guidance.constraint_set import ConstraintSet
from core.processes._sites import moving
from core.processes.transitions.base import Move, Transition
from core.registry import Paper


@dataclass(frozen=True, eq=False)
class Drift(Transition):
    """x_s = x_t + (s - t) velocity + scale normal, one of `proposals` draws of the normal.

    `ahead`, where it is given, is the velocity at s of any numbers: the step then goes along the mean
    of the velocity here and the one at the place to which it would lead (Heun's method, of second order).
    A tilt weighs the proposals, `[N, K]`, and one of them is taken: as K grows this becomes the
    tilted kernel. Weights belong to a proposal's normal, whatever velocity it is added to.
    Constraints project the predicted clean point x_t + (1 - t) velocity once and jointly in data
    units, which are `location + unit x`, and the velocity is recomputed; the step that reaches
    t = 1 then adds no noise and lands on the projected point.
    """

    paper = Paper("ours", "Euler-Maruyama with a projected clean point")

    velocity: Float[Tensor, "N L C"]
    t: float
    s: float
    scale: float = 0.0
    proposals: int = 1
    log_weights: Float[Tensor, "N K"] | None = None
    location: Float[Tensor, "#N #L #C"] | float = 0.0
    unit: Float[Tensor, "#N #L #C"] | float = 1.0
    ahead: Callable[[Float[Tensor, "N L C"]], Float[Tensor, "N L C"]] | None = None

    def tilted(self, log_weights: Float[Tensor, "N K"]) -> Drift:
        total = log_weights if self.log_weights is None else self.log_weights + log_weights
        return replace(self, log_weights=total)

    def away_from(self, other: Drift, weight: float) -> Drift:
        """Velocities are mixed, which mixes scores: the velocity is affine in the score of the path's law at t."""
        ahead, elsewhere = self.ahead, other.ahead
        if ahead is not None and elsewhere is not None:
            mixed = lambda numbers: _away(ahead(numbers), elsewhere(numbers), weight)  # noqa: E731
        else:
            mixed = None
        return replace(self, velocity=_away(self.velocity, other.velocity, weight), ahead=mixed)

    def law(self, batch: SequenceBatch) -> Float[Tensor, "N K"]:
        """Log-probability that each proposal is taken."""
        if self.log_weights is None:
            return self.velocity.new_zeros(len(self.velocity), self.proposals).log_softmax(-1)
        return self.log_weights.log_softmax(-1)

    def candidates(self, batch: SequenceBatch, noise: Noise) -> Float[Tensor, "N K L C"]:
        """The proposals that a draw from the same noise chooses from, fixed places kept."""
        count, length, channels = self.velocity.shape
        here = batch.tokens + (self.s - self.t) * self._heading(batch)
        uniform = noise.fork(self.proposals).uniform(length * channels, Purpose.TOKEN)
        drawn = normal(uniform).to(here.dtype).reshape(count, self.proposals, length, channels)
        return torch.where(moving(batch)[:, None], here[:, None] + self.scale * drawn, batch.tokens[:, None])

    def _heading(self, batch: SequenceBatch) -> Float[Tensor, "N L C"]:
        """The velocity along which the whole step goes."""
        if self.ahead is None:
            return self.velocity
        there = torch.where(moving(batch), batch.tokens + (self.s - self.t) * self.velocity, batch.tokens)
        return (self.velocity + self.ahead(there)) / 2

    def draw(self, batch: SequenceBatch, noise: Noise, constraints: ConstraintSet | None, running: Any) -> Move:
        step, clean = replace(self, velocity=self._heading(batch), ahead=None), None
        if constraints is not None:
            clean = step._projected(batch, constraints)
            step = replace(step, velocity=(clean - batch.tokens) / (1 - self.t))
        if clean is not None and self.s >= 1:
            after = clean
        else:
            chosen = draw(self.law(batch), noise.uniform(1, Purpose.JUMP)[:, 0])
            after = step.candidates(batch, noise)[torch.arange(len(chosen), device=chosen.device), chosen]
        if not bool(after[batch.layout.valid].isfinite().all()):
            raise RuntimeError("a step leads to NaN or infinity: the velocity behind it is not finite")
        done = torch.zeros(len(after), dtype=torch.bool, device=after.device)
        return Move(replace(batch, tokens=after), done, running)

    def _projected(self, batch: SequenceBatch, constraints: ConstraintSet) -> Float[Tensor, "N L C"]:
        clean = batch.tokens + (1 - self.t) * self.velocity
        if batch.fixed is not None:
            clean = torch.where(batch.fixed, batch.tokens, clean)
        moved = constraints.project(clean * self.unit + self.location, batch.layout.lengths, batch.fixed)
        moved = ((moved - self.location) / self.unit).to(clean.dtype)
        return torch.where(moving(batch), moved, batch.tokens)


def _away(this: Float[Tensor, "N L C"], other: Float[Tensor, "N L C"], weight: float) -> Float[Tensor, "N L C"]:
    return this + weight * (this - other)

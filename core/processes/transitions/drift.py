"""Numbers move along a velocity, with noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from core.data.noise import Noise, Purpose, draw
from core.data.sequence_batch import SequenceBatch
from core.guidance.constraint_set import ConstraintSet
from core.processes.transitions.base import Move, Transition
from core.registry import Paper


@dataclass(frozen=True, eq=False)
class Drift(Transition):
    """x_s = x_t + (s - t) velocity + scale normal, one of `proposals` draws of the normal.

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

    def tilted(self, log_weights: Float[Tensor, "N K"]) -> Drift:
        total = log_weights if self.log_weights is None else self.log_weights + log_weights
        return replace(self, log_weights=total)

    def law(self, batch: SequenceBatch) -> Float[Tensor, "N K"]:
        """Log-probability that each proposal is taken."""
        if self.log_weights is None:
            return self.velocity.new_zeros(len(self.velocity), self.proposals).log_softmax(-1)
        return self.log_weights.log_softmax(-1)

    def candidates(self, batch: SequenceBatch, noise: Noise) -> Float[Tensor, "N K L C"]:
        """The proposals that a draw from the same noise chooses from, fixed places kept."""
        count, length, channels = self.velocity.shape
        here = batch.tokens + (self.s - self.t) * self.velocity
        uniform = noise.fork(self.proposals).uniform(length * channels, Purpose.TOKEN)
        # The middle of each cell of the 53-bit grid, kept below 1: the borders are infinitely far out.
        normal = (
            torch.special.ndtri((uniform + 2.0**-54).clamp_max(1 - 2.0**-53))
            .to(here.dtype)
            .reshape(count, self.proposals, length, channels)
        )
        moves = batch.layout.valid[..., None].expand(here.shape)
        if batch.fixed is not None:
            moves = moves & ~batch.fixed
        return torch.where(moves[:, None], here[:, None] + self.scale * normal, batch.tokens[:, None])

    def draw(self, batch: SequenceBatch, noise: Noise, constraints: ConstraintSet | None, running: Any) -> Move:
        step, clean = self, None
        if constraints is not None:
            clean = self._projected(batch, constraints)
            step = replace(self, velocity=(clean - batch.tokens) / (1 - self.t))
        if clean is not None and self.s >= 1:
            after = clean
        else:
            chosen = draw(self.law(batch), noise.uniform(1, Purpose.JUMP)[:, 0])
            after = step.candidates(batch, noise)[torch.arange(len(chosen), device=chosen.device), chosen]
        done = torch.zeros(len(after), dtype=torch.bool, device=after.device)
        return Move(replace(batch, tokens=after), done, running, len(after))

    def _projected(self, batch: SequenceBatch, constraints: ConstraintSet) -> Float[Tensor, "N L C"]:
        clean = batch.tokens + (1 - self.t) * self.velocity
        if batch.fixed is not None:
            clean = torch.where(batch.fixed, batch.tokens, clean)
        moved = constraints.project(clean * self.unit + self.location, batch.layout.lengths, batch.fixed)
        moved = ((moved - self.location) / self.unit).to(clean.dtype)
        keeps = ~batch.layout.valid[..., None].expand(clean.shape)
        keeps = keeps if batch.fixed is None else keeps | batch.fixed
        return torch.where(keeps, batch.tokens, moved)

"""Towards several objectives at once, inside a cone around each sequence's own weights."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.data.noise import Noise
from core.guidance.guides._candidate_guide import BARRIER, CandidateGuide
from core.guidance.guides._candidates import Candidates
from core.guidance.guides._gains import angles, importance, in_units, mid_ranks, shares, standardised
from core.guidance.guides.base import GuideContext
from core.guidance.objectives.base import Target
from core.registry import Paper

_NARROW, _WIDE = math.radians(15.0), math.radians(75.0)


class Mog(CandidateGuide):
    """A candidate's log-weight is strength S with S = z(I) + direction z(D), inside the cone; -40 strength outside.

    I is the mean rank of the candidate's gains among the valid candidates of its site, objectives counting by
    their weights; D is its gain along the sequence's own shares of the objectives, in units of each gain's
    root mean square; z standardises over the valid candidates. The cone holds the candidates whose gain lies
    at most at its angle from the shares. Where it is empty, those that gain along them at all (below 90
    degrees) take their place; where none does, the law is the unguided one.

    Each sequence has a cone of its own, of `angle` degrees at first. r being the share of the gaining
    candidates that lie outside, it is multiplied by exp(rate (mean r - target)) after each step, within 15
    and 75 degrees; `memory` is what the running mean of r keeps of itself, which starts at `target`. A step
    without a gaining candidate leaves both as they are.
    """

    paper = Paper(
        "S001",
        "Multi-Objective-Guided Discrete Flow Matching",
        "2505.07086",
        "every candidate inside the cone may be taken, by its rate; several sites a step; gains per unit of their "
        "size; weights, cone and rejections of each sequence; ties share a rank; candidates without a value "
        "take no part; the tilt multiplies the kernel of the step; any kernel that substitutes",
    )

    def __init__(
        self,
        strength: float = 1.0,
        sites: int | None = 4,
        draws: int = 1,
        direction: float = 1.0,
        angle: float = 45.0,
        target: float = 0.3,
        rate: float = 1.0,
        memory: float = 0.5,
    ) -> None:
        super().__init__(strength, sites, draws)
        for name, value, low, high in (
            ("direction", direction, 0.0, math.inf),
            ("angle", angle, 15.0, 75.0),
            ("target", target, 0.0, 1.0),
            ("rate", rate, 0.0, math.inf),
            ("memory", memory, 0.0, 1.0),
        ):
            if not low <= value <= high or value == math.inf:
                raise ValueError(f"{name} {value}: outside {low:g}..{high:g}")
        self.direction, self.angle, self.target, self.rate, self.memory = direction, angle, target, rate, memory

    def preferences(self, candidates: Candidates, t: float, s: float, context: GuideContext) -> Float[Tensor, "R P V"]:
        noise, targets = candidates.sites.noise, context.scoreboard.targets
        score, angle = self.scores(candidates.gains, candidates.valid, noise, targets)
        gaining = candidates.valid & (angle < math.pi / 2)
        state = context.memory.recall(noise, (math.radians(self.angle), self.target))
        inside = gaining & (angle <= state[:, :1, None])
        context.memory.keep(noise, self.next_cone(state, inside.flatten(1).sum(1), gaining.flatten(1).sum(1)))
        taken = torch.where(inside.any(-1, keepdim=True), inside, gaining)
        weights = torch.where(taken, score, torch.where(candidates.valid, -BARRIER, 0.0))
        return self.strength * torch.where(taken.any(-1, keepdim=True), weights, 0.0)

    def scores(
        self,
        gains: Float[Tensor, "R P V M"],
        valid: Bool[Tensor, "R P V"],
        noise: Noise,
        targets: tuple[Target, ...],
    ) -> tuple[Float[Tensor, "R P V"], Float[Tensor, "R P V"]]:
        """S of each candidate, and the angle between its gain and the row's shares, in radians."""
        weight, towards = importance(noise, targets), shares(noise, targets)[:, None, None]
        each = [(column, in_units(column, valid)) for column in gains.unbind(-1)]
        rank = sum(w * mid_ranks(raw, valid) for w, (raw, _) in zip(weight, each, strict=True)) / weight.sum()
        moved = torch.stack([unit for _, unit in each], -1)
        along = (moved * towards).sum(-1)
        assert isinstance(rank, Tensor)
        score = standardised(rank, valid) + self.direction * standardised(along, valid)
        return score, angles(moved, towards)

    def next_cone(
        self, state: Float[Tensor, "R 2"], inside: Int[Tensor, " R"], gaining: Int[Tensor, " R"]
    ) -> Float[Tensor, "R 2"]:
        """Angle and mean rejection of each row after a step, from the numbers of its candidates."""
        angle, mean = state.unbind(1)
        mean = self.memory * mean + (1 - self.memory) * (1 - inside / gaining.clamp_min(1).double())
        angle = (angle * (self.rate * (mean - self.target)).exp()).clamp(_NARROW, _WIDE)
        return torch.where((gaining > 0)[:, None], torch.stack([angle, mean], 1), state)

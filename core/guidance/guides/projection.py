"""Towards all objectives together, without what sets one against another."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.data.noise import Noise, Purpose
from core.guidance.guides._candidate_guide import CandidateGuide
from core.guidance.guides._candidates import Candidates
from core.guidance.guides._gains import in_units, shares
from core.guidance.guides.base import GuideContext
from core.registry import Paper


class Projection(CandidateGuide):
    """A candidate's log-weight is strength times d, a sum of gains of which what conflicts is taken out.

    The gains of one objective over the candidates of a site are a vector, in units of their root mean square.
    Two such vectors are multiplied by their covariance under the site's kernel: tilting it by strength d
    makes the mean of a utility grow at the rate of its covariance with d. A vector whose product with the
    gains of another objective is negative loses its part along them, one objective after the other, in an
    order that the sequence draws at each step. d is their sum by the sequence's own shares of the objectives. With two
    objectives neither mean falls as strength leaves 0; with more this is likely, not certain.
    """

    paper = Paper(
        "ours",
        "Gradient Surgery for Multi-Task Learning",
        "2001.06782",
        "gains over candidates in place of gradients, multiplied by their covariance; a sum by shares",
    )

    def __init__(self, strength: float = 1.0, sites: int | None = 4, draws: int = 1) -> None:
        super().__init__(strength, sites, draws)

    def preferences(self, candidates: Candidates, t: float, s: float, context: GuideContext) -> Float[Tensor, "R P V"]:
        sites = candidates.sites
        gains = torch.stack([in_units(column, candidates.valid) for column in candidates.gains.unbind(-1)], -2)
        known = candidates.valid | (sites.still & ~candidates.undefined)
        mass = torch.where(known, sites.kernel, 0.0)
        law = mass / mass.sum(-1, keepdim=True).clamp_min(torch.finfo(mass.dtype).tiny)
        kept = _freed(gains, law, _order(sites.noise, gains.shape[-2]))
        towards = shares(sites.noise, context.scoreboard.targets)[:, None, :, None]
        return self.strength * (towards * kept).sum(-2)


def _order(noise: Noise, objectives: int) -> Int[Tensor, "R M"]:
    """In which turn each row takes the objectives."""
    return noise.uniform(objectives, Purpose.GUIDE, lane=2).argsort(1)


def _freed(
    gains: Float[Tensor, "R P M V"], law: Float[Tensor, "R P V"], order: Int[Tensor, "R M"]
) -> Float[Tensor, "R P M V"]:
    """Each objective's gains less what conflicts with those of the others."""
    centred = gains - (law[:, :, None] * gains).sum(-1, keepdim=True)
    size = (law[:, :, None] * centred.square()).sum(-1)
    kept, every = gains, torch.arange(gains.shape[2], device=gains.device)
    for turn in order.unbind(1):
        row = torch.arange(len(turn), device=turn.device)
        other, own = centred[row, :, turn], size[row, :, turn]
        product = (law[:, :, None] * kept * other[:, :, None]).sum(-1)
        conflicts = (product < 0) & (every != turn[:, None])[:, None]
        share = torch.where(conflicts, product / own[..., None].clamp_min(torch.finfo(own.dtype).tiny), 0.0)
        kept = kept - share[..., None] * gains[row, :, turn][:, :, None]
    return kept

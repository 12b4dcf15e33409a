"""Towards the worst-met objective of each sequence, by moves that keep a target law."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from core.errors import UserError
from core.guidance.guides._candidate_guide import BARRIER, CandidateGuide
from core.guidance.guides._candidates import Candidates
from core.guidance.guides._gains import shares
from core.guidance.guides._sites import Sites
from core.guidance.guides.base import GuideContext
from core.guidance.known import Known
from core.registry import Paper

# By how many nats the best known is wanted more than the worst.
_SPAN = 20.0


class Tchebycheff(CandidateGuide):
    """Each site moves by Metropolis-Hastings towards p(v) exp(strength h T(v)), p being where it goes unguided.

    T is the least, over the objectives, of the utility, scaled so that what is known before the run lies between
    0 and 20, over M times the sequence's own share of the objective; below 0 shares do not count. So the best
    T lies where the front is met along the shares. h grows from `heat` at t = 0 to 1 at t = 1, by
    equal factors in equal times.

    With jump probability j, r = exp(strength h T) and the balancing function g(u) = 2u / (1 + u), a site that shows x
    is proposed y with j p(y) g(r(y) / r(x)) / Z(x), which is the step tilted by g, and the move is accepted
    with min(1, Z(x) / Z(y)): all in one kernel, which leaves p r invariant, the other sites given. Strength 0
    is the step itself. A site that shows no token has none to move from: it draws from p r.

    pilot: unguided sequences from which a run learns how its utilities are scaled.
    """

    paper = Paper(
        "ours",
        "AReUReDi: Annealed Rectified Updates for Refining Discrete Flows with Multi-Objective Guidance",
        "2510.00352",
        "acceptance enters the kernel of a site in place of being drawn; the step's own kernel is the base of "
        "the proposals; a sequence's shares are drawn once; annealed in the time of the process",
    )

    def __init__(
        self, strength: float = 1.0, sites: int | None = 4, draws: int = 1, heat: float = 0.1, pilot: int = 64
    ) -> None:
        super().__init__(strength, sites, draws)
        if not 0 < heat <= 1:
            raise ValueError(f"heat {heat}: above 0 and at most 1")
        if pilot < 1:
            raise ValueError(f"pilot {pilot}: at least 1")
        self.heat, self.pilot = heat, pilot

    def preferences(self, candidates: Candidates, t: float, s: float, context: GuideContext) -> Float[Tensor, "R P V"]:
        if context.known is None:
            raise UserError("guide=tchebycheff needs utilities from before the run, to scale by")
        sites, heat = candidates.sites, self.heat ** (1 - min(max(t, 0.0), 1.0))
        towards = shares(sites.noise, context.scoreboard.targets)
        worth = _worth(candidates.utility, towards, context.known)
        least = torch.where(worth.isnan(), torch.inf, worth).amin(-1, keepdim=True)
        floor = self.strength * heat * least - abs(self.strength) * BARRIER
        log_ratio = torch.where(worth.isnan(), floor, self.strength * heat * worth)
        weights = torch.where(
            sites.blank[..., None], log_ratio - log_ratio.amax(-1, keepdim=True), _moves(sites, log_ratio)
        )
        return torch.where(candidates.valid.any(-1, keepdim=True), weights, 0.0)


def _worth(utility: Float[Tensor, "R D P V M"], towards: Float[Tensor, "R M"], known: Known) -> Float[Tensor, "R P V"]:
    """T of every token, its mean over the completions; NaN without a value."""
    low, high = (torch.from_numpy(bound).to(utility) for bound in (known.low, known.high))
    scaled = _SPAN * (utility - low) / (high - low)
    counted = scaled / (towards.shape[1] * towards[:, None, None, None])
    return torch.where(scaled > 0, counted, scaled).amin(-1).nanmean(1)


def _moves(sites: Sites, log_ratio: Float[Tensor, "R P V"]) -> Float[Tensor, "R P V"]:
    """What makes each site's kernel the Metropolis-Hastings one, r being exp(log_ratio) up to a factor."""
    size, jump, law = log_ratio.shape[-1], sites.jump[..., None], sites.log_law.exp()
    here = sites.standing[:, 0].clamp_max(size - 1)[..., None]
    balance = lambda token: 2 * (log_ratio - log_ratio[..., token : token + 1]).sigmoid()  # noqa: E731
    # Z of every token, one at a time: all pairs of a large alphabet would not fit.
    total = torch.stack([(law * balance(token)).sum(-1) for token in range(size)], -1)
    total = (1 - jump + jump * total).log()
    own = total.gather(-1, here)
    proposed = torch.nn.functional.logsigmoid(log_ratio - log_ratio.gather(-1, here)) + math.log(2)
    moves = proposed - own + (own - total).clamp_max(0)
    left = (jump * law * moves.exp()).masked_fill(sites.still, 0.0).sum(-1, keepdim=True)
    least = torch.finfo(law.dtype).tiny
    stays = (1 - left).clamp_min(least).log() - (1 - jump + jump * law.gather(-1, here)).clamp_min(least).log()
    return torch.where(sites.still, stays, moves)

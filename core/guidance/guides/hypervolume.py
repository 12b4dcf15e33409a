"""Towards what the best sequences known leave open."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.errors import UserError
from core.evaluation.hypervolume import hypervolume
from core.guidance.guides._candidate_guide import CandidateGuide
from core.guidance.guides._candidates import Candidates
from core.guidance.guides._gains import in_units
from core.guidance.guides.base import GuideContext
from core.guidance.known import Known
from core.registry import Paper


class Hypervolume(CandidateGuide):
    """A candidate's log-weight is strength times its gain in expected hypervolume improvement, per unit of its size.

    The improvement is what a sequence would add to the hypervolume of the archive, above the worst that was seen
    of each objective; a sequence that adds nothing counts by how much every utility would have to rise
    for it to be no longer dominated, as a negative number. The expectation is over `draws` completions, and the unit
    the root mean square of the gains over the candidates of a site. Where none of these gains anything, the
    law is the unguided one.

    The archive is that of `context.known`, from before the run: were it to grow with the run, a sequence
    would depend on those drawn beside it. pilot: unguided sequences from which a run makes it.
    """

    paper = Paper(
        "ours",
        "Differentiable Expected Hypervolume Improvement for Parallel Multi-Objective Bayesian Optimization",
        "2006.05078",
        "expected over completions of a sequence, each scored, not over a surrogate; what is dominated counts by "
        "its distance from the front; no improvement of several candidates together",
    )

    def __init__(self, strength: float = 1.0, sites: int | None = 4, draws: int = 1, pilot: int = 64) -> None:
        super().__init__(strength, sites, draws)
        if pilot < 1:
            raise ValueError(f"pilot {pilot}: at least 1")
        self.pilot = pilot

    def preferences(self, candidates: Candidates, t: float, s: float, context: GuideContext) -> Float[Tensor, "R P V"]:
        if context.known is None:
            raise UserError("guide=hypervolume needs utilities from before the run, to improve on")
        then, now = (_improvement(values, context.known) for values in (candidates.utility, candidates.base))
        gains = torch.where(candidates.valid, (then - now[:, :, None, None]).nanmean(1), 0.0)
        improving = (gains > 0).any(-1, keepdim=True)
        return torch.where(improving, self.strength * in_units(gains, candidates.valid), 0.0)


def _improvement(utility: Float[Tensor, "*shape M"], known: Known) -> Float[Tensor, "*shape"]:
    """Of each sequence over the archive, the scaled reference point being 0; NaN without a value."""
    points = known.scaled(utility.flatten(0, -2).cpu().numpy())
    whole, front = ~np.isnan(points).any(axis=1), known.scaled(known.archive.utilities)
    kinds, place = np.unique(points[whole], axis=0, return_inverse=True)
    values = np.full(len(points), np.nan)
    values[whole] = _added(kinds, front)[place.reshape(-1)]
    return torch.from_numpy(values).to(utility.device).reshape(utility.shape[:-1])


def _added(points: Float[np.ndarray, "N M"], front: Float[np.ndarray, "A M"]) -> Float[np.ndarray, " N"]:
    """The volume that each point dominates alone, above 0 and `front`; if there is none, how far it is from one."""
    behind = np.maximum.reduce([(best - points).min(axis=1) for best in front], initial=-np.inf)
    values = -np.maximum(behind, (-points).max(axis=1)).clip(min=0.0)
    for row in np.flatnonzero((behind < 0) & (points > 0).all(axis=1)):
        values[row] = points[row].prod() - hypervolume(np.minimum(front, points[row]), 0.0)
    return values

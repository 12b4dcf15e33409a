"""What guides share that score candidates."""

from __future__ import annotations

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

from core.guidance.guides._candidates import Candidates
from core.guidance.guides._site_guide import SiteGuide
from core.guidance.guides._sites import Sites
from core.guidance.guides.base import GuideContext

# How many nats a strength of 1 holds against what is not wanted at all.
BARRIER = 40.0


class CandidateGuide(SiteGuide):
    """Scores every token that the looked-at sites may take, each distinct sequence once.

    These calls are what it costs. A candidate under which an objective has no value is shunned wherever the
    others are weighed; a site without a candidate worth weighing keeps the unguided law.
    """

    def log_weights(self, sites: Sites, t: float, s: float, context: GuideContext) -> Float[Tensor, "R P V"]:
        candidates = Candidates.of(sites, context)
        weights = self.preferences(candidates, t, s, context)
        shunned = candidates.undefined & (weights != 0).any(-1, keepdim=True)
        return torch.where(shunned, -abs(self.strength) * BARRIER, weights)

    @abstractmethod
    def preferences(self, candidates: Candidates, t: float, s: float, context: GuideContext) -> Float[Tensor, "R P V"]:
        """The log-weights; what is said of `candidates.undefined` does not count."""

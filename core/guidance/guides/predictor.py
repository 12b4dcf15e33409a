"""Towards what a predictor says of whole sequences, every substitution asked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from core.guidance.guides._candidate_guide import CandidateGuide
from core.guidance.guides._candidates import Candidates
from core.guidance.guides._likelihood import Reading, log_probability, log_ratio, refuse_reading, refuse_values
from core.guidance.guides.base import GuideContext
from core.guidance.objectives.base import Target
from core.registry import Paper


class Predictor(CandidateGuide):
    """A candidate y weighs strength (log p(c | y) - log p(c | x)), x being the sequence as it stands.

    The objectives are the predictor: `reads` says whether a utility is taken for a log-probability in nats, up to
    a constant, or a score in [0, 1] for a probability; several count together, by their weights. Strength 1
    gives the law under c as steps become short, where p(c | x) is right for what x stands for. Under a mask
    it is the mean of p over `draws` completions: right as they become many, if what is still masked is
    independent given the rest. Where all sites show tokens, as under a uniform source, the noisy sequence itself is
    asked for, so the predictor should have been trained on such.

    Costs up to L (V - 1) calls a row and step; under a mask only for the sites that move.
    """

    paper = Paper(
        "ours",
        "Unlocking Guidance for Discrete State-Space Diffusion and Flow Models",
        "2406.01572",
        "the kernel of the step is tilted in place of rates; under a mask sites keep the times at which they move; "
        "a predictor of clean sequences is averaged over completions",
    )

    def __init__(
        self, strength: float = 1.0, sites: int | None = None, draws: int = 1, reads: Reading = "log_probability"
    ) -> None:
        super().__init__(strength, sites, draws)
        refuse_reading(reads)
        self.reads: Reading = reads

    def suits(self, targets: Sequence[Target]) -> None:
        super().suits(targets)
        refuse_values(targets, self.reads)

    def preferences(self, candidates: Candidates, t: float, s: float, context: GuideContext) -> Float[Tensor, "R P V"]:
        targets = context.scoreboard.targets
        then, now = (log_probability(values, self.reads, targets) for values in (candidates.utility, candidates.base))
        return torch.where(candidates.valid, log_ratio(then, now, self.strength), 0.0)

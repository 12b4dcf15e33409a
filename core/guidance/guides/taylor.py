"""Towards what a predictor says of whole sequences, by its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from core.errors import UserError
from core.guidance.guides._likelihood import (
    Reading,
    log_probability,
    log_ratio,
    probability,
    refuse_reading,
    refuse_values,
)
from core.guidance.guides._site_guide import SiteGuide
from core.guidance.guides._sites import Sites
from core.guidance.guides.base import GuideContext
from core.guidance.objectives.base import Differentiable, Target
from core.registry import Paper


class Taylor(SiteGuide):
    """As `predictor`, with log p(c | y) - log p(c | x) by the gradient at x: g(y_i) - g(x_i) at site i.

    Every objective must have a gradient (`Differentiable`), else `UserError`. One call a row, completion and
    step, whatever the number of sites; exact for a predictor that is linear in the one-hot letters.
    """

    paper = Paper(
        "ours",
        "Unlocking Guidance for Discrete State-Space Diffusion and Flow Models",
        "2406.01572",
        "its Taylor-approximated guidance, with the deviations of `predictor`",
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
        for target in targets:
            _differentiable(target)

    def log_weights(self, sites: Sites, t: float, s: float, context: GuideContext) -> Float[Tensor, "R P V"]:
        count, draws, width = sites.completed.shape
        owner = torch.arange(count, device=sites.rows.device).repeat_interleave(draws)
        values = context.decode(sites.batch(sites.completed.flatten(0, 1), owner))
        board, distinct = context.scoreboard, list(dict.fromkeys(values))
        scores = board.score(distinct)
        utility = torch.from_numpy(board.utility(scores))
        slope = torch.zeros(len(distinct), width, sites.log_law.shape[-1], dtype=torch.float64)
        for target, score, column in zip(board.targets, scores.T, utility.unbind(-1), strict=True):
            turned = torch.from_numpy(_turn(target, score))
            if self.reads == "probability":
                turned = turned / probability(column, target)
            gradient = torch.from_numpy(_gradient(target, distinct, context.letters, width))
            slope += target.weight * turned[:, None, None] * gradient
        number = {value: place for place, value in enumerate(distinct)}
        which = torch.tensor([number[value] for value in values]).reshape(count, draws)
        now = log_probability(utility, self.reads, board.targets)[which].to(owner.device)
        at = sites.places[:, None, :, None].expand(-1, draws, -1, slope.shape[-1])
        found = slope[which].to(owner.device).gather(2, at)
        # Places that hold no site stand for none: what is read there does not count.
        from_here = found.gather(3, sites.standing.clamp_max(slope.shape[-1] - 1)[..., None])
        ratio = log_ratio(now[..., None, None] + found - from_here, now, self.strength)
        return torch.where(sites.open, ratio, 0.0)


def _differentiable(target: Target) -> Differentiable:
    """Its objective; `UserError` for one without a gradient."""
    if not isinstance(target.objective, Differentiable):
        raise UserError(f"objective {target.name} has no gradient: use guide=predictor, or drop it")
    return target.objective


def _turn(target: Target, score: Float[np.ndarray, " U"]) -> Float[np.ndarray, " U"]:
    """How the utility grows with the score."""
    if target.direction == "near":
        return np.sign(target.near - score)
    return np.full_like(score, 1.0 if target.direction == "max" else -1.0)


def _gradient(target: Target, values: Sequence[Any], letters: Sequence[str], width: int) -> Float[np.ndarray, "U S V"]:
    """Of the score, by site and token; `UserError` for an objective that has none of these."""
    objective = _differentiable(target)
    missing = [letter for letter in letters if letter not in objective.letters]
    if missing:
        raise UserError(f"the gradient of objective {target.name} has no column for the letter {missing[0]!r}")
    found = np.asarray(objective.gradient(values), dtype=np.float64)
    if found.ndim != 3 or found.shape[0] != len(values) or found.shape[2] != len(objective.letters):
        raise UserError(
            f"the gradient of objective {target.name} has shape {found.shape} for {len(values)} sequences "
            f"and {len(objective.letters)} letters"
        )
    column = [objective.letters.index(letter) for letter in letters]
    short = max(0, width - found.shape[1])
    return np.pad(found, ((0, 0), (0, short), (0, 0)))[:, :width, column]

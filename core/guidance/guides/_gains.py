"""Numbers that guides make of the gains of candidates, each site's candidates on their own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from core.data.noise import Noise, Purpose
from core.guidance.objectives.base import Target

_EPSILON = 1e-8


def mid_ranks(values: Float[Tensor, "*sites V"], valid: Bool[Tensor, "*sites V"]) -> Float[Tensor, "*sites V"]:
    """The rank of each valid value among the C valid ones of its site, over C: the largest has 1, equal ones
    share their mean rank; 0 for the others."""
    masked = torch.where(valid, values, torch.inf)
    ordered = masked.sort(-1).values
    below, upto = (torch.searchsorted(ordered, masked, right=right) for right in (False, True))
    return torch.where(valid, (below + upto + 1).to(values) / 2 / valid.sum(-1, keepdim=True).clamp_min(1), 0.0)


def standardised(values: Float[Tensor, "*sites V"], valid: Bool[Tensor, "*sites V"]) -> Float[Tensor, "*sites V"]:
    """Less the mean of a site's valid values and over their spread (of the population); 0 for the others."""
    count = valid.sum(-1, keepdim=True).clamp_min(1)
    apart = torch.where(valid, values, 0.0)
    apart = torch.where(valid, apart - apart.sum(-1, keepdim=True) / count, 0.0)
    return apart / ((apart.square().sum(-1, keepdim=True) / count).sqrt() + _EPSILON)


def in_units(gains: Float[Tensor, "*sites V"], valid: Bool[Tensor, "*sites V"]) -> Float[Tensor, "*sites V"]:
    """Gains over their root mean square at the site, so that no unit counts; 0 where nothing is gained or lost."""
    known = torch.where(valid, gains, 0.0)
    # Of numbers that neither overflow nor vanish when squared.
    known = known / known.abs().amax(-1, keepdim=True).clamp_min(torch.finfo(known.dtype).tiny)
    mean = known.square().sum(-1, keepdim=True) / valid.sum(-1, keepdim=True).clamp_min(1)
    return known / mean.sqrt().clamp_min(torch.finfo(known.dtype).tiny)


def angles(gains: Float[Tensor, "*sites M"], towards: Float[Tensor, "*#sites M"]) -> Float[Tensor, "*sites"]:
    """Between each gain and a direction, in radians; pi for a gain of nothing."""
    length = gains.norm(dim=-1) * towards.norm(dim=-1)
    cosine = (gains * towards).sum(-1) / torch.where(length > 0, length, 1.0)
    return torch.where(length > 0, cosine, -1.0).clamp(-1, 1).acos()


def shares(noise: Noise, targets: Sequence[Target]) -> Float[Tensor, "N M"]:
    """What each objective counts for each row: its weight times a point drawn evenly from the simplex, summing to 1.

    A row has the same shares at every step, and rows differ, so that together they cover the front.
    """
    uniform = noise.at(0).uniform(len(targets), Purpose.GUIDE, lane=1)
    # Exponential numbers over their sum lie evenly on the simplex, never on its border.
    drawn = -torch.log1p(-(uniform + 2.0**-54).clamp_max(1 - 2.0**-53)) * importance(noise, targets)
    return drawn / drawn.sum(1, keepdim=True)


def importance(noise: Noise, targets: Sequence[Target]) -> Float[Tensor, " M"]:
    """The weights with which the objectives were asked for."""
    given = [target.weight for target in targets]
    return torch.tensor(given, dtype=torch.float64, device=noise.sequences.device)

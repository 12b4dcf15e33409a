"""Objectives read as the probability of what is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from core.errors import UserError
from core.guidance.guides._sites import CAP
from core.guidance.objectives.base import Target

Reading = Literal["log_probability", "probability"]


def refuse_reading(reads: str) -> None:
    """ValueError for a reading that there is not."""
    if reads not in get_args(Reading):
        raise ValueError(f"reads {reads!r} is none of {', '.join(get_args(Reading))}")


def refuse_values(targets: Sequence[Target], reads: Reading) -> None:
    """`UserError` for an objective that is sought at a value, where scores are to be probabilities."""
    for target in targets:
        if reads == "probability" and target.direction == "near":
            raise _no_probability(target)


def log_probability(
    utility: Float[Tensor, "*shape M"], reads: Reading, targets: Sequence[Target]
) -> Float[Tensor, "*shape"]:
    """log p(c | x), c being that every objective is met, each counting by its weight; NaN for a NaN.

    A utility is a log-probability in nats as it stands, up to a constant, or a probability: that of what is
    asked for where an objective is maximised, of the contrary where it is minimised.
    """
    total = torch.zeros_like(utility[..., 0])
    for target, column in zip(targets, utility.unbind(-1), strict=True):
        total = total + target.weight * (column if reads == "log_probability" else probability(column, target).log())
    return total


def probability(utility: Float[Tensor, "*shape"], target: Target) -> Float[Tensor, "*shape"]:
    """That `target` is met; `UserError` where its scores are no probabilities."""
    found = utility if target.direction == "max" else 1 + utility
    if bool(((found < 0) | (found > 1)).any()):
        raise _no_probability(target)
    return found


def _no_probability(target: Target) -> UserError:
    return UserError(
        f"objective {target.name} is no probability: ask for its max or min, of scores in 0..1, "
        "or pass guide.reads=log_probability"
    )


def log_ratio(then: Float[Tensor, "R D P V"], now: Float[Tensor, "R D"], strength: float) -> Float[Tensor, "R P V"]:
    """strength (log p(c | y) - log p(c | x)) of probabilities that are means over D completions.

    A completion without a value has probability 0.
    """
    ratio = _log_mean(then) - _log_mean(now)[:, None, None]
    return strength * ratio.nan_to_num(nan=0.0, posinf=CAP, neginf=-CAP).clamp(-CAP, CAP)


def _log_mean(values: Float[Tensor, "R D *rest"]) -> Float[Tensor, "R *rest"]:
    return torch.where(values.isnan(), -torch.inf, values).logsumexp(1) - math.log(values.shape[1])

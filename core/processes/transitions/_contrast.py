"""Log-weights pushed away from other ones."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def contrast(logits: Float[Tensor, "*shape"], other: Float[Tensor, "*shape"], weight: float) -> Float[Tensor, "*shape"]:
    """logits + weight (logits - other), and the logit itself where either is -inf.

    Neither need be normalised: a constant drops out of the law, and a sum over places would depend
    on how wide the batch is.
    """
    excluded = (logits == -torch.inf) | (other == -torch.inf)
    return logits + torch.where(excluded, 0.0, weight * (logits - other))

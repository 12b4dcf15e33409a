"""One draw a row among the outcomes of a step."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.data.noise import Noise, Purpose, draw


def draw_outcome(log_weights: Float[Tensor, "N O"], noise: Noise) -> Int[Tensor, " N"]:
    """An outcome for each row; a row that has none left raises RuntimeError, its law being at fault."""
    lost = (log_weights == -torch.inf).all(1)
    if bool(lost.any()):
        raise RuntimeError(f"row {int(lost.nonzero()[0, 0])}: its law leaves no accepted sequence within reach")
    return draw(log_weights, noise.uniform(1, Purpose.TOKEN)[:, 0])

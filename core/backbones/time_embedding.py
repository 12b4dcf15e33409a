"""Time as a vector."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu


class TimeEmbedding(nn.Module):
    """Sinusoids of t in [0, 1] at geometric frequencies, then two linear maps."""

    def __init__(self, width: int, frequencies: int = 64) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.inner = nn.Linear(2 * frequencies, width)
        self.outer = nn.Linear(width, width)

    def forward(self, time: Float[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        wide = torch.promote_types(time.dtype, torch.float32)
        ladder = torch.arange(self.frequencies, device=time.device, dtype=wide) / self.frequencies
        # From one turn in 2 pi units of t up to a thousand: both ends of t are resolved.
        angle = time.to(wide)[..., None] * torch.exp(math.log(1000.0) * ladder)
        waves = torch.cat([angle.cos(), angle.sin()], -1).to(self.inner.weight.dtype)
        return self.outer(silu(self.inner(waves)))

"""All memories at once, summed."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.backbones.memories.base import Fusion
from core.backbones.source import Source
from core.registry import Paper


class Parallel(Fusion):
    """The sum of the cross-attentions, each of which asks with the same tokens."""

    paper = Paper("S016", "Input Combination Strategies for Multi-Source Transformer Decoder", "1811.04716")

    def _fuse(
        self, h: Float[Tensor, "N L D"], positions: Int[Tensor, "N L P"], sources: tuple[Source, ...]
    ) -> Float[Tensor, "N L D"]:
        read = (reader.out(reader(h, positions, source)[0]) for reader, source in self._pairs(sources))
        return sum(read, start=torch.zeros_like(h))

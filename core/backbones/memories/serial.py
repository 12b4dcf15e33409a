"""One memory after the other."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.backbones.memories.base import Fusion
from core.backbones.source import Source
from core.registry import Paper


class Serial(Fusion):
    """Each cross-attention asks with what those before it have added."""

    paper = Paper(
        "S016",
        "Input Combination Strategies for Multi-Source Transformer Decoder",
        "1811.04716",
        "no norm between the cross-attentions, so that an empty memory changes nothing",
    )
    ordered = True

    def _fuse(
        self, h: Float[Tensor, "N L D"], positions: Int[Tensor, "N L P"], sources: tuple[Source, ...]
    ) -> Float[Tensor, "N L D"]:
        added = torch.zeros_like(h)
        for reader, source in self._pairs(sources):
            added = added + reader.out(reader(h + added, positions, source)[0])
        return added

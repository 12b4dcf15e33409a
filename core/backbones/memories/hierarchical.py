"""Attention over what each memory has to say."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.backbones.memories.base import Fusion
from core.backbones.source import Source
from core.registry import Paper


class Hierarchical(Fusion):
    """Each token weighs the memories by what it read from each, and adds the weighted sum."""

    paper = Paper(
        "S009",
        "Attention Strategies for Multi-Source Sequence-to-Sequence Learning",
        "1704.06567",
        "dot-product scores; the weight of a memory is one number a token",
    )

    def __init__(self, width: int, sources: Mapping[str, int], heads: int = 4, rotary: bool = False) -> None:
        super().__init__(width, sources, heads, rotary)
        self.ask = nn.Linear(width, width, bias=False)
        self.offers = nn.ModuleDict({name: nn.Linear(width, width, bias=False) for name in sources})

    def _fuse(
        self, h: Float[Tensor, "N L D"], positions: Int[Tensor, "N L P"], sources: tuple[Source, ...]
    ) -> Float[Tensor, "N L D"]:
        question = self.ask(h) * self.width**-0.5
        read, scores = [], []
        for (reader, source), offer in zip(self._pairs(sources), self.offers.values(), strict=True):
            context = reader(h, positions, source)[0]
            absent = ~source.seen.any(-1)[:, None]
            read.append(reader.out(context))
            scores.append((question * offer(context)).sum(-1).masked_fill(absent, -torch.inf))
        together = torch.stack(scores, -1)
        # Where every memory is absent all were read as zeros, so any weights will do.
        together = together.masked_fill((together == -torch.inf).all(-1, keepdim=True), 0)
        return (torch.stack(read, -1) * together.softmax(-1)[..., None, :]).sum(-1)

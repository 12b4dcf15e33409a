"""One softmax over the slots of all memories."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.backbones.memories.base import Fusion
from core.backbones.source import Source
from core.registry import Paper


class Flat(Fusion):
    """Memories share each token's attention; merged by their log-sum-exp, they are never copied together."""

    paper = Paper(
        "S009",
        "Attention Strategies for Multi-Source Sequence-to-Sequence Learning",
        "1704.06567",
        "dot-product scores in heads; queries and output maps of each memory's own too",
    )

    def _fuse(
        self, h: Float[Tensor, "N L D"], positions: Int[Tensor, "N L P"], sources: tuple[Source, ...]
    ) -> Float[Tensor, "N L D"]:
        pairs = self._pairs(sources)
        found = [reader(h, positions, source, with_lse=True) for reader, source in pairs]
        lse = torch.stack([total for _, total in found], -1)
        # A token that sees nothing anywhere read zeros from each, so any weights will do.
        lse = lse.masked_fill((lse == -torch.inf).all(-1, keepdim=True), 0)
        share = lse.softmax(-1).to(h.dtype).transpose(1, 2)
        added = torch.zeros_like(h)
        for index, ((reader, _), (read, _)) in enumerate(zip(pairs, found, strict=True)):
            part = share[..., index, None] * read.unflatten(-1, (self.heads, -1))
            added = added + reader.out(part.flatten(2))
        return added

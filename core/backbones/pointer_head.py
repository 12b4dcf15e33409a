"""Output and input ids that point into a memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, pad

from core.backbones.engines.rows import as_packed, as_rows
from core.backbones.source import Source
from core.data.layout import Layout
from core.data.sequence_batch import Memory
from core.registry import Paper


class PointerHead(nn.Module):
    """Id V + j stands for slot j of the memory row that a sequence owns, V being the embedding's rows.

    Out: a gate shares each token's probability between the vocabulary and the slots (copy mix).
    In: the embedding of a pointed id is the encoded memory vector. Rows may have any length, so a
    trained head points into memories of lengths it has never seen.
    """

    paper = Paper("S080", "Pointer Networks", "1506.03134", "dot-product scores; copy gate of 1704.04368")

    def __init__(self, width: int, vocabulary: int, memory: str) -> None:
        super().__init__()
        self.width, self.vocabulary, self.memory = width, vocabulary, memory
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, 1)

    def project(self, memories: Mapping[str, Memory], n: int) -> Source:
        """The encoded memory: its vectors, and the keys by which they are pointed at."""
        empty = self.key.weight.new_zeros(1, 1, self.width)
        return Source.of(memories.get(self.memory), n, empty, lambda rows, _: (self.key(rows), rows))

    def embed(
        self, tokens: Int[Tensor, "B L"], h: Float[Tensor, "B L D"], layout: Layout, source: Source
    ) -> Float[Tensor, "B L D"]:
        """`h` with the memory's vector in place of each token that points."""
        place = tokens - self.vocabulary
        owner = source.owner[layout.owners.clamp_min(0)]
        slot = place.clamp(0, source.valid.shape[1] - 1)
        there = (owner >= 0) & (place == slot) & source.valid[owner.clamp_min(0), slot]
        pointed = source.values[owner.clamp_min(0), slot].to(h.dtype) * there[..., None]
        return torch.where(((place >= 0) & layout.valid)[..., None], pointed, h)

    def forward(
        self, h: Float[Tensor, "B L D"], logits: Float[Tensor, "B L O"], layout: Layout, source: Source
    ) -> Float[Tensor, "B L W"]:
        """Log-probabilities of ids 0 .. V + S - 1, from logits of the first O <= V of them.

        Ids that the vocabulary's logits lack, and slots that hold no token, are -inf.
        """
        asked = self.query(h)
        rows = as_rows(asked, layout) if layout.is_packed else asked
        scores = rows @ source.keys[source.owner.clamp_min(0)].to(rows.dtype).transpose(1, 2) * self.width**-0.5
        seen = source.seen[:, None]
        some = seen.any(-1, keepdim=True)
        # Where nothing can be pointed at, the softmax runs over all, and the gate keeps the vocabulary alone.
        pointing = scores.masked_fill(~seen & some, -torch.inf).log_softmax(-1).masked_fill(~seen, -torch.inf)
        pointing = as_packed(pointing, layout) if layout.is_packed else pointing
        gate = self.gate(h).masked_fill(~some[layout.owners.clamp_min(0), 0], -torch.inf)
        known = logsigmoid(-gate) + logits.log_softmax(-1)
        known = pad(known, (0, self.vocabulary - logits.shape[-1]), value=-torch.inf)
        return torch.cat([known, logsigmoid(gate) + pointing], -1)

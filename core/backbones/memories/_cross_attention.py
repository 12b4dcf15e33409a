"""Attention of sequences on one memory."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn

from core.backbones.engines.attend import attend
from core.backbones.positions import rotate
from core.backbones.source import Source
from core.data.sequence_batch import Memory


class CrossAttention(nn.Module):
    """Queries from the sequences, keys and values from the rows of a memory of `breadth` channels."""

    def __init__(self, width: int, breadth: int, heads: int, rotary: bool) -> None:
        super().__init__()
        self.heads, self.rotary = heads, rotary
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(breadth, width, bias=False)
        self.value = nn.Linear(breadth, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def project(self, memory: Memory | None, n: int) -> Source:
        """The memory's keys and values, computed once for all tokens that will read them."""
        return Source.of(memory, n, self.key.weight.new_zeros(1, 1, self.key.in_features), self._key_value)

    def _key_value(
        self, rows: Float[Tensor, "R S D"], positions: Int[Tensor, "R S P"]
    ) -> tuple[Float[Tensor, "R S H E"], Float[Tensor, "R S H E"]]:
        key, value = (project(rows).unflatten(-1, (self.heads, -1)) for project in (self.key, self.value))
        return (rotate(key.transpose(1, 2), positions).transpose(1, 2) if self.rotary else key), value

    def forward(
        self, h: Float[Tensor, "N L D"], positions: Int[Tensor, "N L P"], source: Source, with_lse: bool = False
    ) -> tuple[Float[Tensor, "N L D"], Float[Tensor, "N H L"] | None]:
        """What each token reads, before the map `out`; with the log-sum-exp of its scores where asked for."""
        query = self.query(h).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        query = rotate(query, positions) if self.rotary else query
        owner = source.owner.clamp_min(0)
        key, value = (part[owner].transpose(1, 2).to(query.dtype) for part in (source.keys, source.values))
        seen = source.seen[:, None].expand(-1, h.shape[1], -1)
        read, lse = attend(query, key, value, seen, with_lse=with_lse)
        return read.transpose(1, 2).flatten(2), lse

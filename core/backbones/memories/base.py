"""The contract of every fusion of memories."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from core.backbones.engines.rows import as_packed, as_rows
from core.backbones.memories._cross_attention import CrossAttention
from core.backbones.source import Source
from core.data.layout import Layout
from core.data.sequence_batch import Memory
from core.registry import Paper


class Fusion(nn.Module, ABC):
    """How the tokens of a layer read several memories: one branch beside the residual stream.

    Each memory has a `CrossAttention` of its own; a member says how they are joined. One memory is
    plain cross-attention. A memory that is empty for a sequence (none given, owner -1, a row
    without tokens) is as if the member had been built without it. Memory rows may serve several
    sequences, and a sequence depends on the row that it owns alone. `ordered` says whether the
    order of the memories matters; it is the one that the member was built with.

    sources: channels of each memory's encoded rows, by name. rotary: whether positions turn
    queries and keys, for memories that run alongside the sequence.
    """

    paper: ClassVar[Paper]
    ordered: ClassVar[bool] = False

    def __init__(self, width: int, sources: Mapping[str, int], heads: int = 4, rotary: bool = False) -> None:
        super().__init__()
        if heads < 1 or width % heads or (rotary and width // heads % 2):
            raise ValueError(f"width {width} does not split into {heads} heads" + " of pairs" * rotary)
        self.width, self.heads = width, heads
        self.readers = nn.ModuleDict(
            {name: CrossAttention(width, breadth, heads, rotary) for name, breadth in sources.items()}
        )

    def project(self, memories: Mapping[str, Memory], n: int) -> tuple[Source, ...]:
        """The encoded memories as this layer reads them, one for each that it was built for."""
        return tuple(reader.project(memories.get(name), n) for name, reader in self._named_readers())

    def forward(
        self,
        h: Float[Tensor, "B L D"],
        layout: Layout,
        positions: Int[Tensor, "B L P"],
        sources: tuple[Source, ...],
    ) -> Float[Tensor, "B L D"]:
        """What is added to the tokens of `h`; rows of padding come back as zeros."""
        hole = ~layout.valid[..., None]
        h = h.masked_fill(hole, 0)
        if not layout.is_packed:
            return self._fuse(h, positions, sources).masked_fill(hole, 0)
        y = self._fuse(as_rows(h, layout), as_rows(positions, layout), sources)
        return as_packed(y, layout).masked_fill(hole, 0)

    @abstractmethod
    def _fuse(
        self, h: Float[Tensor, "N L D"], positions: Int[Tensor, "N L P"], sources: tuple[Source, ...]
    ) -> Float[Tensor, "N L D"]:
        """The branch for one row a sequence."""

    def _pairs(self, sources: tuple[Source, ...]) -> list[tuple[CrossAttention, Source]]:
        """Each cross-attention beside what it reads."""
        return [(reader, source) for (_, reader), source in zip(self._named_readers(), sources, strict=True)]

    def _named_readers(self) -> list[tuple[str, CrossAttention]]:
        return [(name, reader) for name, reader in self.readers.items() if isinstance(reader, CrossAttention)]

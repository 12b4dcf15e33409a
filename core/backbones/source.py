"""A memory in the form in which one layer reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from core.backbones.state import State
from core.data.sequence_batch import Memory


@dataclass(frozen=True, eq=False)
class Source(State):
    """Keys and values of R encoded rows of S slots, of which each of N sequences reads at most one.

    owner: the row that each sequence reads, -1 for none. valid: slots that hold a token. Rows are
    shared: `select` and `fork` move the owner only, and no number of tokens read changes them.
    """

    owner: Int[Tensor, " N"]
    valid: Bool[Tensor, "R S"]
    keys: Shaped[Tensor, "R S *rest"]
    values: Shaped[Tensor, "R S *rest"]

    @staticmethod
    def of(
        memory: Memory | None,
        n: int,
        empty: Float[Tensor, "1 1 D"],
        project: Callable[[Float[Tensor, "R S D"], Int[Tensor, "R S P"]], tuple[Tensor, Tensor]],
    ) -> Source:
        """`memory` as n sequences read it: keys and values are what `project` makes of rows and positions.

        `empty` is what is projected where there is no memory, or one without a single slot.
        """
        nothing = torch.zeros(n, dtype=torch.long, device=empty.device)
        if memory is None:
            owner, valid, rows = nothing - 1, empty.new_zeros(1, 1, dtype=torch.bool), empty
            return Source(nothing, owner, valid, *project(rows, nothing.new_zeros(1, 1, 1)))
        layout = memory.batch.layout
        if memory.encoded is None:
            raise ValueError("a layer reads encoded memories: encode them first")
        if layout.is_packed or len(memory.owner) != n:
            raise ValueError(f"a memory is padded and names a row for each of {n} sequences, got {len(memory.owner)}")
        if not memory.encoded[..., 0].numel():
            return Source.of(None, n, empty, project)
        return Source(nothing, memory.owner, layout.valid, *project(memory.encoded, layout.positions))

    @property
    def seen(self) -> Bool[Tensor, "N S"]:
        """The slots that each sequence may read."""
        return self.valid[self.owner.clamp_min(0)] & (self.owner >= 0)[:, None]

    def _map(self, change: Callable[[Tensor], Tensor]) -> Source:
        return replace(self, position=change(self.position), owner=change(self.owner))

    def truncate(self, length: Int[Tensor, " N"]) -> Source:
        return replace(self, position=length)

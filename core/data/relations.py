"""Typed edges between the tokens of a sequence."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Relations:
    """A sparse list of edges, in any order.

    edges: `(sequence, from, to)`: in that sequence the token at offset `from` looks at the one at
    offset `to`. types: what kind of edge each is. Edges between the same two tokens add up.
    """

    edges: Int[Tensor, "E 3"]
    types: Int[Tensor, " E"]

    def select(self, index: Int[Tensor, " K"]) -> Relations:
        """The edges of sequences `index`, numbered in that order."""
        place, edge = (index[:, None] == self.edges[None, :, 0]).nonzero(as_tuple=True)
        return Relations(torch.cat([place[:, None], self.edges[edge, 1:]], 1), self.types[edge])

    def to(self, device: torch.device | str) -> Relations:
        """The same edges on another device."""
        return replace(self, edges=self.edges.to(device), types=self.types.to(device))

    def refuse_outside(self, lengths: Int[Tensor, " N"]) -> None:
        """`ValueError` for an edge that leaves its sequence. Waits for the device."""
        sequence, ends = self.edges[:, 0], self.edges[:, 1:]
        # The last row stands for every sequence that there is not: it has no room.
        room = torch.cat([lengths, lengths.new_zeros(1)])
        room = room[torch.where((sequence >= 0) & (sequence < len(lengths)), sequence, len(lengths))]
        inside = ((ends >= 0) & (ends < room[:, None])).all(1)
        if not bool(inside.all()):
            worst = int((~inside).nonzero()[0, 0])
            raise ValueError(f"edge {worst} {self.edges[worst].tolist()} leaves its sequence")

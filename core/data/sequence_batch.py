"""The one batch that every room passes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from core.data.layout import Layout


@dataclass(frozen=True, eq=False)
class Memory:
    """A side input that sequences read: a source, a schema, an accompaniment, retrieved items.

    owner: the memory row that each of the N sequences reads, -1 for none (neutral). Selecting
    sequences moves the owner, never the encoded rows.
    """

    batch: SequenceBatch
    owner: Int[Tensor, " N"]


@dataclass(frozen=True, eq=False)
class SequenceBatch:
    """N sequences with what a loss, a process or a sampler needs of them.

    tokens: ids `[B, L]`, fields `[B, L, F]` or floats `[B, L, C]`. fixed: places that no process
    may change. targets, weights: per token, before any reduction. condition: per sequence.
    memories: side inputs by name.
    """

    tokens: Shaped[Tensor, "B L *F"]
    layout: Layout
    targets: Shaped[Tensor, "B L *F"] | None = None
    weights: Float[Tensor, "B L"] | None = None
    fixed: Bool[Tensor, "B L *F"] | None = None
    condition: Float[Tensor, "N C"] | None = None
    memories: Mapping[str, Memory] = field(default_factory=dict)

    @property
    def fields(self) -> int:
        """Sites that one token holds."""
        return math.prod(self.tokens.shape[2:])

    def select(self, index: Int[Tensor, " K"]) -> SequenceBatch:
        """Sequences `index` of a padded batch, in that order."""
        pick = lambda value: None if value is None else value[index]  # noqa: E731
        return replace(
            self,
            tokens=self.tokens[index],
            layout=self.layout.select(index),
            targets=pick(self.targets),
            weights=pick(self.weights),
            fixed=pick(self.fixed),
            condition=pick(self.condition),
            memories={name: replace(m, owner=m.owner[index]) for name, m in self.memories.items()},
        )

    def fork(self, k: int) -> SequenceBatch:
        """Each sequence k times in a row."""
        rows = torch.arange(self.layout.count, device=self.tokens.device)
        return self.select(rows.repeat_interleave(k))

    def to(self, device: torch.device | str) -> SequenceBatch:
        """The same batch on another device."""
        move = lambda value: None if value is None else value.to(device)  # noqa: E731
        return replace(
            self,
            tokens=self.tokens.to(device),
            layout=self.layout.to(device),
            targets=move(self.targets),
            weights=move(self.weights),
            fixed=move(self.fixed),
            condition=move(self.condition),
            memories={name: Memory(m.batch.to(device), m.owner.to(device)) for name, m in self.memories.items()},
        )

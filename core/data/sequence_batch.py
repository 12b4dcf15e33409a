"""The one batch that every room passes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from core.data.layout import Layout

# The memory that prepared pairs become.
SOURCE = "source"


@dataclass(frozen=True, eq=False)
class Memory:
    """A side input that sequences read: a source, a schema, an accompaniment, retrieved items.

    owner: the memory row that each of the N sequences reads, -1 for none (neutral). Selecting
    sequences moves the owner, never the encoded rows. encoded: what an encoder made of the rows,
    once, None until then.
    """

    batch: SequenceBatch
    owner: Int[Tensor, " N"]
    encoded: Float[Tensor, "R S D"] | None = None

    def to(self, device: torch.device | str) -> Memory:
        """The same memory on another device."""
        encoded = None if self.encoded is None else self.encoded.to(device)
        return Memory(self.batch.to(device), self.owner.to(device), encoded)


@dataclass(frozen=True, eq=False)
class SequenceBatch:
    """N sequences with what a loss, a process or a sampler needs of them.

    tokens: ids `[B, L]`, fields `[B, L, F]` or floats `[B, L, C]`. fixed: places that no process
    may change. closed: gaps that no process may fill, gap g lying before token g; with fixed tokens
    on both sides they keep these together. targets, weights: per token, before any reduction.
    condition: per sequence. memories: side inputs by name. estimate: the probabilities of data tokens
    that the network last gave each site, for networks that read them; zeros where it was not asked.
    """

    tokens: Shaped[Tensor, "B L *F"]
    layout: Layout
    targets: Shaped[Tensor, "B L *F"] | None = None
    weights: Float[Tensor, "B L"] | None = None
    fixed: Bool[Tensor, "B L *F"] | None = None
    condition: Float[Tensor, "N C"] | None = None
    memories: Mapping[str, Memory] = field(default_factory=dict)
    closed: Bool[Tensor, "N G"] | None = None
    estimate: Float[Tensor, "B S V"] | None = None

    @staticmethod
    def padded(rows: Sequence[Shaped[Tensor, "_ ..."]], fill: int = 0) -> SequenceBatch:
        """One sequence a row; `fill` is the id in places without a token."""
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        tokens = torch.nn.utils.rnn.pad_sequence([*rows], batch_first=True, padding_value=fill)
        return SequenceBatch(tokens, Layout.padded(lengths, tokens.shape[1]))

    @property
    def fields(self) -> int:
        """Sites that one token holds; of numbers, the channels of a place."""
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
            closed=pick(self.closed),
            estimate=pick(self.estimate),
        )

    def narrowed(self, width: int) -> SequenceBatch:
        """A padded batch without its last places, which hold no token."""
        cut = lambda value, places=width: None if value is None else value[:, :places]  # noqa: E731
        return replace(
            self,
            tokens=self.tokens[:, :width],
            layout=self.layout.narrowed(width),
            targets=cut(self.targets),
            weights=cut(self.weights),
            fixed=cut(self.fixed),
            closed=cut(self.closed, width + 1),
            estimate=cut(self.estimate, width * self.fields),
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
            memories={name: memory.to(device) for name, memory in self.memories.items()},
            closed=move(self.closed),
            estimate=move(self.estimate),
        )

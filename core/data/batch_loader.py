"""Hands out the batches of one split, epoch by epoch, from wherever training stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.data.batching import bucketed_batches, divisible, packed_batches
from core.data.conditions import Conditions
from core.data.layout import Layout
from core.data.sequence_batch import SOURCE, Memory, SequenceBatch
from core.data.shards import TokenShards
from core.data.token_store import TokenStore
from core.errors import UserError


class BatchLoader:
    """The batches of one rank in the current epoch.

    Iterating asks `epoch` which epoch it is. `state_dict` names the next batch, and the first
    iteration after `load_state_dict` starts there if it is the same epoch.

    shards: the split. budget: tokens a batch, padding included. packed: one row of `budget`
    tokens instead of one row a sequence. fill: id in places without a token. rank, world: which
    share of each epoch's batches. conditions: how the shards' condition columns become `condition`;
    shards without any, and None, give batches without. Sources of the shards' sequences become the
    memory `source`, a row each; a sequence without one owns none. They fit into the budget too.
    """

    def __init__(
        self,
        shards: TokenShards,
        budget: int,
        *,
        packed: bool = False,
        fill: int = 0,
        seed: int = 0,
        epoch: Callable[[], int] = lambda: 0,
        rank: int = 0,
        world: int = 1,
        conditions: Conditions | None = None,
    ) -> None:
        self.shards, self.budget, self.packed, self.fill = shards, budget, packed, fill
        self.seed, self.epoch, self.rank, self.world = seed, epoch, rank, world
        self._conditions = shards.condition(conditions)
        self._plan: tuple[int, list[np.ndarray]] | None = None
        self._place = (0, 0)
        self._resume: tuple[int, int] | None = None

    def batches(self, epoch: int) -> list[np.ndarray]:
        """All ranks' batches of one epoch; rank r takes every `world`-th from the r-th on."""
        if self._plan is None or self._plan[0] != epoch:
            arrange = packed_batches if self.packed else bucketed_batches
            found = arrange(self._widths(), self.budget, self.seed, epoch)
            self._plan = (epoch, divisible(found, self.world))
        return self._plan[1]

    def _widths(self) -> np.ndarray:
        """Tokens of each sequence, or of its source where that is the longer one."""
        sources = self.shards.sources
        if sources is None:
            return self.shards.lengths
        if len(sources) and sources.lengths.max() > self.budget:
            place = int(sources.lengths.argmax())
            raise UserError(
                f"the source of sequence {place + 1} has {sources.lengths[place]} tokens, more than "
                f"batch_tokens={self.budget}: raise it"
            )
        return np.maximum(self.shards.lengths, sources.lengths)

    def __len__(self) -> int:
        return len(self.batches(self.epoch())) // self.world

    def __iter__(self) -> Iterator[SequenceBatch]:
        epoch = self.epoch()
        mine = self.batches(epoch)[self.rank :: self.world]
        start = self._resume[1] if self._resume is not None and self._resume[0] == epoch else 0
        self._resume = None
        for place in range(start, len(mine)):
            self._place = (epoch, place + 1)
            yield self.collate(mine[place])

    def collate(self, indices: np.ndarray) -> SequenceBatch:
        """The sequences of some indices as one batch."""
        rows = _rows(self.shards.store, indices)
        if self.packed:
            lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
            tokens = torch.full((1, self.budget), self.fill)
            tokens[0, : int(lengths.sum())] = torch.cat(rows)
            batch = SequenceBatch(tokens, Layout.packed(lengths, self.budget))
        else:
            batch = SequenceBatch.padded(rows, self.fill)
        return replace(batch, condition=self._condition(indices), memories=self._memories(indices))

    def _memories(self, indices: np.ndarray) -> dict[str, Memory]:
        if self.shards.sources is None:
            return {}
        batch = SequenceBatch.padded(_rows(self.shards.sources, indices), self.fill)
        lengths = batch.layout.lengths
        return {SOURCE: Memory(batch, torch.where(lengths > 0, torch.arange(len(lengths)), -1))}

    def _condition(self, indices: np.ndarray) -> Float[Tensor, "N C"] | None:
        return None if self._conditions is None else self._conditions[torch.from_numpy(indices)]

    def state_dict(self) -> dict[str, int]:
        """Where this loader stands, for a checkpoint inside an epoch."""
        epoch, place = self._place
        return {"epoch": epoch, "batch": place, "batches": len(self.batches(epoch)), "world": self.world}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on from there. Raises `UserError` if the epoch is cut into other batches now."""
        now = {"batches": len(self.batches(state["epoch"])), "world": self.world}
        for name, value in now.items():
            if state[name] != value:
                raise UserError(
                    f"the checkpoint stopped inside an epoch of {name}={state[name]}, now {value}: "
                    "resume with the same data, batch_tokens and devices"
                )
        self._resume = self._place = (state["epoch"], state["batch"])


def _rows(store: TokenStore, indices: np.ndarray) -> list[Int[Tensor, " _"]]:
    """The sequences of some indices."""
    return [torch.from_numpy(store[int(index)].astype(np.int64)) for index in indices]

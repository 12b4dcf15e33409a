"""Decoding state as a value: forked by beams, narrowed when rows end, rolled back by drafts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


@dataclass(frozen=True, eq=False)
class State(ABC):
    """What has been read so far, for N sequences.

    Every field is a tensor with leading axis N, or a tuple of States; `position[n]` is the
    place of the next token of row n. Nothing is changed in place: `step` and `forward` return
    a new State, and an old one stays usable.
    """

    position: Int[Tensor, " N"]

    def _map(self, change) -> Self:
        values = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Tensor):
                values[entry.name] = change(value)
            elif isinstance(value, tuple):
                values[entry.name] = tuple(part._map(change) for part in value)
        return replace(self, **values)

    def select(self, index: Int[Tensor, " K"]) -> Self:
        """Rows `index`, in that order."""
        return self._map(lambda value: value[index])

    def fork(self, k: int) -> Self:
        """Each row k times in a row."""
        return self._map(lambda value: value.repeat_interleave(k, 0))

    @abstractmethod
    def truncate(self, length: Int[Tensor, " N"]) -> Self:
        """The state as it was when `length[n]` tokens of row n had been read.

        Raises ValueError where this kind of state has forgotten that point.
        """

    @property
    def nbytes(self) -> int:
        """Memory held by the tensors."""
        total = 0
        for entry in fields(self):
            value = getattr(self, entry.name)
            total += sum(part.nbytes for part in value) if isinstance(value, tuple) else value.nbytes
        return total


@dataclass(frozen=True, eq=False)
class Recurrent(State):
    """A state of constant size, fp32 whatever the activations.

    value: `[N, ...]`. history: `[N, T, ...]`, the states after each of the last T <= 16 tokens,
    kept only under `keep="all"`: the sole points that truncation can return to.
    """

    value: Shaped[Tensor, "N *rest"]
    history: Shaped[Tensor, "N T *rest"] | None = None

    def _map(self, change) -> Self:
        history = None if self.history is None else change(self.history)
        return replace(self, position=change(self.position), value=change(self.value), history=history)

    def truncate(self, length: Int[Tensor, " N"]) -> Self:
        if self.history is None:
            if bool((length == self.position).all()):
                return self
            raise ValueError('a recurrent state rolls back only when it was kept with keep="all"')
        back = self.position - length
        kept = self.history.shape[1]
        if bool(((back < 0) | (back >= kept)).any()):
            raise ValueError(f"the state remembers {kept} tokens, cannot go back {int(back.max())}")
        rows = torch.arange(len(length), device=length.device)
        return replace(self, position=length, value=self.history[rows, kept - 1 - back], history=None)

    @property
    def nbytes(self) -> int:
        return self.position.nbytes + self.value.nbytes + (0 if self.history is None else self.history.nbytes)


@dataclass(frozen=True, eq=False)
class KeyValue(State):
    """Keys and values of what a query may still see.

    keys, values: `[N, H, T, E]`. places: position of the token in each slot, -1 when empty.
    Growing without a window; with one, the slots are a ring of window + 16, so that the last
    16 tokens can be taken back exactly. Sinks stand before the ring.
    """

    keys: Shaped[Tensor, "N H T E"]
    values: Shaped[Tensor, "N H T E"]
    places: Int[Tensor, "N T"]

    def truncate(self, length: Int[Tensor, " N"]) -> Self:
        return replace(self, position=length, places=torch.where(self.places < length[:, None], self.places, -1))


@dataclass(frozen=True, eq=False)
class Stack(State):
    """The states of a stack of mixers, one a layer."""

    layers: tuple[State, ...]

    def truncate(self, length: Int[Tensor, " N"]) -> Self:
        return replace(self, position=length, layers=tuple(layer.truncate(length) for layer in self.layers))



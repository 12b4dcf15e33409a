"""Decoding state as a value: forked by beams, narrowed when rows end, rolled back by drafts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

# Written out, because the run-time checker of the tests does not know `Self` in a dataclass.
Kind = TypeVar("Kind", bound="State")


@dataclass(frozen=True, eq=False)
class State(ABC):
    """What has been read so far, for N sequences.

    Every field is a tensor with leading axis N, a tuple of States, or None; `position[n]` is the
    place of the next token of row n. Nothing is changed in place: `step` and `forward` return
    a new State, and an old one stays usable. A `Source` alone also holds rows that sequences share.
    """

    position: Int[Tensor, " N"]

    def _map(self: Kind, change) -> Kind:
        values = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Tensor):
                values[entry.name] = change(value)
            elif isinstance(value, tuple):
                values[entry.name] = tuple(part._map(change) for part in value)
        return replace(self, **values)

    def select(self: Kind, index: Int[Tensor, " K"]) -> Kind:
        """Rows `index`, in that order."""
        return self._map(lambda value: value[index])

    def fork(self: Kind, k: int) -> Kind:
        """Each row k times in a row."""
        return self._map(lambda value: value.repeat_interleave(k, 0))

    @abstractmethod
    def truncate(self: Kind, length: Int[Tensor, " N"]) -> Kind:
        """The state as it was when `length[n]` tokens of row n had been read.

        Raises ValueError where this kind of state has forgotten that point.
        """

    @property
    def nbytes(self) -> int:
        """Memory held by the tensors."""
        total = 0
        for entry in fields(self):
            value = getattr(self, entry.name)
            parts = value if isinstance(value, tuple) else (value,)
            total += sum(part.nbytes for part in parts if part is not None)
        return total

    def _reachable(self, length: Int[Tensor, " N"], oldest: Int[Tensor, " N"]) -> None:
        if bool(((length < oldest) | (length > self.position)).any()):
            raise ValueError("the state can go back to at most its oldest remembered token, and never forward")


@dataclass(frozen=True, eq=False)
class Recurrent(State):
    """A state of constant size, at least fp32 whatever the activations.

    value: `[N, ...]`. history: `[N, T + 1, ...]`, kept only under `keep="all"`: entry [n, j] is
    the state after `oldest[n] + j` tokens, the sole points that truncation can return to.
    """

    value: Shaped[Tensor, "N *rest"]
    history: Shaped[Tensor, "N T *rest"] | None = None
    oldest: Int[Tensor, " N"] | None = None

    def truncate(self, length: Int[Tensor, " N"]) -> Recurrent:
        if self.history is None or self.oldest is None:
            if bool((length == self.position).all()):
                return self
            raise ValueError('a recurrent state rolls back only when it was kept with keep="all"')
        self._reachable(length, self.oldest)
        rows = torch.arange(len(length), device=length.device)
        return replace(self, position=length, value=self.history[rows, length - self.oldest])


@dataclass(frozen=True, eq=False)
class KeyValue(State):
    """Keys and values of what a query may still see.

    keys, values: `[N, H, T, E]`. places: position of the token in each slot, -1 when empty.
    oldest: the shortest length that truncation can return to.
    Growing without a window; with one, the slots are a ring of window + 16, so that the last
    16 tokens can be taken back exactly. Sinks stand before the ring.
    """

    keys: Shaped[Tensor, "N H T E"]
    values: Shaped[Tensor, "N H T E"]
    places: Int[Tensor, "N T"]
    oldest: Int[Tensor, " N"]

    def truncate(self, length: Int[Tensor, " N"]) -> KeyValue:
        self._reachable(length, self.oldest)
        return replace(self, position=length, places=torch.where(self.places < length[:, None], self.places, -1))


@dataclass(frozen=True, eq=False)
class Stack(State):
    """The states of a stack of mixers, one a layer, and the condition under which they were read."""

    layers: tuple[State, ...]
    condition: Float[Tensor, "N C"] | None = None

    def truncate(self, length: Int[Tensor, " N"]) -> Stack:
        return replace(self, position=length, layers=tuple(layer.truncate(length) for layer in self.layers))

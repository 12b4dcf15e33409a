"""Reading sequences that grow, each token once."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.backbones.state import State
from core.data.sequence_batch import SequenceBatch
from core.errors import UserError
from core.processes.autoregressive import Autoregressive
from core.processes.base import Network, Process, RecurrentNetwork
from core.processes.transitions.append import Append


class Asked:
    """A network that counts the calls of it, and the rows they were for."""

    def __init__(self, network: Network) -> None:
        self.network, self.calls, self.rows = network, 0, 0

    def _count(self, rows: int) -> None:
        self.calls, self.rows = self.calls + (rows > 0), self.rows + rows

    def __call__(self, batch: SequenceBatch, time: Float[Tensor, "B S"] | None) -> Float[Tensor, "B S V"]:
        self._count(batch.layout.count)
        return self.network(batch, time)

    def read(self, batch: SequenceBatch) -> tuple[Float[Tensor, "N V"], State]:
        self._count(batch.layout.count)
        assert isinstance(self.network, RecurrentNetwork)
        return self.network.read(batch)

    def step(self, tokens: Int[Tensor, " N"], state: State) -> tuple[Float[Tensor, "N V"], State]:
        self._count(len(tokens))
        assert isinstance(self.network, RecurrentNetwork)
        return self.network.step(tokens, state)


class Recalling:
    """A network that is not asked twice for rows that are alike at the same time, until it forgets."""

    def __init__(self, network: Network) -> None:
        self._network, self._width = network, 0
        self.forget()

    def forget(self) -> None:
        """Ask anew from here on."""
        self._places: dict[bytes, int] = {}
        self._answers: Float[Tensor, "R S V"] | None = None

    def __call__(self, batch: SequenceBatch, time: Float[Tensor, "B S"] | None) -> Float[Tensor, "B S V"]:
        columns = _columns(batch) + ([] if time is None else [time.double()])
        keys = [row.tobytes() for row in torch.cat(columns, 1).cpu().numpy()]
        if self._width != batch.tokens.shape[1]:
            self.forget()
            self._width = batch.tokens.shape[1]
        fresh: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in self._places:
                fresh.setdefault(key, row)
        if fresh or self._answers is None:
            index = torch.tensor(list(fresh.values()), dtype=torch.long, device=batch.tokens.device)
            said = self._network(batch.select(index), None if time is None else time[index])
            self._answers = said if self._answers is None else torch.cat([self._answers, said])
            self._places |= {key: place for place, key in enumerate(fresh, start=len(self._places))}
        return self._answers[torch.tensor([self._places[key] for key in keys], device=batch.tokens.device)]


class Reader:
    """What a network has read of N growing sequences, and what it says comes next.

    Sequences that begin alike, under the same condition and memories, are read once for all of
    them, and the State is forked.
    """

    def __init__(self, process: Process, network: Asked, batch: SequenceBatch) -> None:
        if not isinstance(process, Autoregressive) or not isinstance(network.network, RecurrentNetwork):
            raise ValueError("decoding needs an autoregressive process and a network that decodes")
        self._process, self._network, self.condition = process, network, batch.condition
        first, owner = alike(batch)
        logits, state = network.read(process.shifted(batch.select(first)))
        self._logits, self._state = logits[owner], state.select(owner)

    def next(self, batch: SequenceBatch) -> Append:
        """The law of the next token of `batch`, the sequences as they have been read."""
        return self._process.append(self._logits, batch.layout.lengths)

    def select(self, index: Int[Tensor, " K"]) -> None:
        """Go on with rows `index`, in that order."""
        self._logits, self._state = self._logits[index], self._state.select(index)
        self.condition = None if self.condition is None else self.condition[index]

    def step(self, tokens: Int[Tensor, " N"]) -> None:
        """Read one more token of each sequence."""
        self._logits, self._state = self._network.step(tokens, self._state)


class Readers:
    """Readers of the same sequences: under their own condition, and under others that are asked for.

    One that is not asked for in a step is dropped, and would read its sequences anew.
    """

    def __init__(self, process: Process, network: Asked, batch: SequenceBatch) -> None:
        self._process, self._network = process, network
        self._main = Reader(process, network, batch)
        self._others: list[Reader] = []
        self._asked: list[Reader] = []

    def next(self, batch: SequenceBatch) -> Append:
        """The law of the next token of `batch` under its own condition."""
        return self._main.next(batch)

    def under(self, batch: SequenceBatch, condition: Float[Tensor, "N C"] | None) -> Append:
        """The law of the next token of `batch` under another condition."""
        known = (reader for reader in (*self._asked, *self._others) if _equal(reader.condition, condition))
        reader = next(known, None) or Reader(self._process, self._network, replace(batch, condition=condition))
        if reader not in self._asked:
            self._asked.append(reader)
        return reader.next(batch)

    def advance(self, index: Int[Tensor, " K"] | None, tokens: Int[Tensor, " K"]) -> None:
        """Go on with rows `index`, all where it is None, and read one more token of each."""
        self._others, self._asked = self._asked, []
        for reader in (self._main, *self._others):
            if index is not None:
                reader.select(index)
            reader.step(tokens)


def refuse_all_but_autoregressive(sampler: str, process: Process) -> None:
    """`UserError` for a process that does not write token by token."""
    if not isinstance(process, Autoregressive):
        raise UserError(f"sampler={sampler} needs an autoregressive checkpoint, drop it or name another")


def _equal(one: Float[Tensor, "N C"] | None, other: Float[Tensor, "N C"] | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def alike(batch: SequenceBatch) -> tuple[Int[Tensor, " K"], Int[Tensor, " N"]]:
    """One row of each kind of sequence, under one condition and one set of memories, and of which kind each row is."""
    kinds, owner = torch.unique(torch.cat(_columns(batch), 1), dim=0, return_inverse=True)
    first = torch.full((len(kinds),), batch.layout.count, device=owner.device)
    places = torch.arange(batch.layout.count, device=owner.device)
    return first.scatter_reduce(0, owner, places, "amin"), owner


def _columns(batch: SequenceBatch) -> list[Float[Tensor, "N _"]]:
    """What a network reads of each sequence, as numbers."""
    held = batch.layout.valid.repeat_interleave(batch.fields, 1)
    columns = [torch.where(held, batch.tokens.flatten(1), -1), batch.layout.lengths[:, None]]
    columns += [memory.owner[:, None] for memory in batch.memories.values()]
    if batch.condition is not None:
        columns += [batch.condition.nan_to_num(), batch.condition.isnan()]
    if batch.estimate is not None:
        columns.append(batch.estimate.flatten(1))
    return [column.double() for column in columns]

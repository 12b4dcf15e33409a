"""Sequences on their way through the steps of a process, some of which go on in place of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding._guiding import Guiding
from core.decoding._reader import Asked, Readers, Recalling
from core.decoding._retire import retire
from core.guidance.constraint_set import ConstraintSet
from core.processes.autoregressive import Autoregressive
from core.processes.base import Network, Process, RecurrentNetwork
from core.processes.transitions.append import Append
from core.processes.transitions.base import Transition
from core.processes.transitions.insert import Insert


class Road:
    """What all walks of a run have in common: the process, its steps, the network and the constraints.

    A network is asked once for sequences that are alike until a step is drawn; one that decodes reads each
    token once.
    """

    def __init__(self, process: Process, network: Network, steps: int, constraints: ConstraintSet | None) -> None:
        self.process, self.constraints = process, constraints
        self.grid, self.asked = process.grid(steps), Asked(network)
        self.once = Recalling(self.asked)
        self.decodes = isinstance(process, Autoregressive) and isinstance(network, RecurrentNetwork)

    def transition(self, batch: SequenceBatch, t: float, s: float) -> Transition:
        """The law of one step."""
        return self.process.transition(self.once, batch, t, s)


class Walk:
    """N sequences from step to step, each at a place of its own, unguided unless told.

    From the same noise it draws what `Stepwise` draws, or `Ancestral` where the network decodes. `batch`
    holds those that still go on and `rows` their places, ascending; `finished` holds the others by place.
    """

    def __init__(self, road: Road, start: SequenceBatch, noise: Noise, guiding: Guiding | None = None) -> None:
        device = start.tokens.device
        self.road, self.noise, self.batch, self.guiding = road, noise, start, guiding or Guiding((), None)
        self.rows = torch.arange(start.layout.count, device=device)
        self.finished: dict[int, Tensor] = {}
        self.grows = False
        self._running = None if road.constraints is None else road.constraints.start(start.layout.count, device)
        self._readers = Readers(road.process, road.asked, start) if road.decodes else None
        # Which rows of the readers have drawn a token that is not read yet.
        self._unread: Int[Tensor, " R"] | None = None

    def run(self, first: int, last: int) -> None:
        """The steps from `first` up to but not including `last`, as long as a sequence goes on."""
        for index in range(first, last):
            if len(self.rows):
                self.step(index)

    def step(self, index: int) -> Int[Tensor, " E"]:
        """One step; returns the places whose sequences it has finished. The last of the grid finishes all."""
        here, batch = self.noise.select(self.rows).at(index), self.batch
        t, s = self.road.grid[index]
        transition, model = self._law(t, s)
        self.grows = isinstance(transition, Append | Insert)
        transition = self.guiding.tilted(transition, batch, t, s, here, model)
        move = transition.draw(batch, here, self.road.constraints, self._running)
        self.road.once.forget()
        done = torch.ones_like(move.done) if index + 1 == len(self.road.grid) else move.done
        ended, self._unread = self.rows[done], (~done).nonzero()[:, 0]
        self.batch, self._running, _, self.rows = retire(move.batch, move.running, here, self.rows, done, self.finished)
        return ended

    def _law(self, t: float, s: float) -> tuple[Transition, Callable[[Float[Tensor, "N C"] | None], Transition]]:
        """The unguided law of the next step, and the same under other conditions."""
        batch, readers = self.batch, self._readers
        if readers is None:
            under = lambda condition: self.road.transition(replace(batch, condition=condition), t, s)  # noqa: E731
            return self.road.transition(batch, t, s), under
        if self._unread is not None:
            readers.advance(self._unread, batch.tokens[batch.layout.last()])
        return readers.next(batch), lambda condition: readers.under(batch, condition)

    def take(self, ancestors: Int[Tensor, " N"]) -> None:
        """Every place goes on with the sequence of the place that `ancestors` names, its own noise kept."""
        standing = {place: row for row, place in enumerate(self.rows.tolist())}
        chosen = dict(enumerate(ancestors.tolist()))
        self.finished = {place: self.finished[source] for place, source in chosen.items() if source in self.finished}
        live = {place: standing[source] for place, source in chosen.items() if source in standing}
        as_index: Any = lambda numbers: torch.tensor([*numbers], dtype=torch.long, device=self.rows.device)  # noqa: E731
        self.rows, index = as_index(live), as_index(live.values())
        self.batch = self.batch.select(index)
        self._running = None if self._running is None else self._running.select(index)
        self._unread = None if self._unread is None else self._unread[index]
        for memory in self.guiding.memories:
            memory.follow(self.noise, ancestors)

    def outcome(self, places: Int[Tensor, " E"]) -> SequenceBatch:
        """The finished sequences of some places, at least one."""
        return SequenceBatch.padded([self.finished[place] for place in places.tolist()]).to(places.device)

"""Step by step through time, for every process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding._guiding import Context, Guiding
from core.decoding._reader import Asked
from core.decoding._retire import retire
from core.decoding.base import Sampler, Samples
from core.errors import UserError
from core.guidance.constraint_set import ConstraintSet
from core.guidance.guides.base import Guide
from core.processes.base import Network, Process, Reversible
from core.registry import Paper


class Stepwise(Sampler):
    """prior -> transition -> guides -> constraints -> draw, once for each step of the grid.

    The network is asked only for rows that can change in a step, so it is called at most
    min(steps, sites) times where a row moves one site at a time. Rows that are finished leave the
    batch. `first` resumes at a later step: with the sequences of that step and their noise the
    result is the uninterrupted one. `progress` is told (step, steps).

    corrector: how strongly each step first walks back along the path, in the mean number of times
    that a site starts anew over the whole run; what is settled can so be revised. 0 never does. It
    keeps the law of the path at every time, and needs a process whose path can be walked back.
    """

    paper = Paper("S004", "Discrete Flow Matching", "2407.15595")

    def __init__(
        self,
        steps: int = 64,
        guides: Sequence[Guide] = (),
        context: Context | None = None,
        trajectory: bool = False,
        progress: Callable[[int, int], None] | None = None,
        corrector: float = 0.0,
    ) -> None:
        if steps < 1:
            raise ValueError(f"sampling takes at least one step, got {steps}")
        if not 0 <= corrector < float("inf"):
            raise ValueError(f"corrector {corrector}: a finite number that is not negative")
        self.steps, self.guiding = steps, Guiding(guides, context)
        self.trajectory, self.progress, self.corrector = trajectory, progress, corrector

    def suits(self, process: Process) -> None:
        if self.corrector and not isinstance(process, Reversible):
            raise UserError(f"{type(process).__name__} has no way back for a corrector: pass corrector=0")

    def sample(
        self,
        process: Process,
        network: Network,
        start: SequenceBatch,
        noise: Noise,
        constraints: ConstraintSet | None = None,
        first: int = 0,
    ) -> Samples:
        self.suits(process)
        batch, running = (
            start,
            None if constraints is None else constraints.start(start.layout.count, start.tokens.device),
        )
        rows = torch.arange(start.layout.count, device=start.tokens.device)
        finished: dict[int, Tensor] = {}
        asked = Asked(network)
        path: list[SequenceBatch] = []
        grid = process.grid(self.steps)
        for index, (t, s) in enumerate(grid[first:], start=first):
            if not len(rows):
                break
            here = noise.at(index)
            if self.corrector and isinstance(process, Reversible):
                batch, t = process.renoise(batch, t, s, self.corrector, here)
            transition = process.transition(asked, batch, t, s)
            model = lambda condition, batch=batch, t=t, s=s: process.transition(  # noqa: E731
                asked, replace(batch, condition=condition), t, s
            )
            transition = self.guiding.tilted(transition, batch, t, s, here, model)
            move = transition.draw(batch, here, constraints, running)
            batch, running, noise, rows = retire(move.batch, move.running, noise, rows, move.done, finished)
            if self.trajectory:
                path.append(batch)
            if self.progress is not None:
                self.progress(index + 1, len(grid))
        retire(batch, running, noise, rows, torch.ones_like(rows, dtype=torch.bool), finished)
        done = tuple(finished[n] for n in range(start.layout.count))
        return Samples(done, asked.calls, asked.rows, tuple(path))

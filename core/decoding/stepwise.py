"""Step by step through time, for every process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.base import Sampler, Samples
from core.guidance.constraint_set import ConstraintSet
from core.guidance.guides.base import Guide, GuideContext
from core.processes.base import Network, Process
from core.registry import Paper


class Stepwise(Sampler):
    """prior -> transition -> guides -> constraints -> draw, once for each step of the grid.

    The network is asked only for rows that can change in a step, so it is called at most
    min(steps, sites) times where a row moves one site at a time. Rows that are finished leave the
    batch. `first` resumes at a later step: with the sequences of that step and their noise the
    result is the uninterrupted one. `progress` is told (step, steps).
    """

    paper = Paper("S004", "Discrete Flow Matching", "2407.15595")

    def __init__(
        self,
        steps: int = 64,
        guides: Sequence[Guide] = (),
        context: Callable[[SequenceBatch, Noise], GuideContext] | None = None,
        trajectory: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        if steps < 1:
            raise ValueError(f"sampling takes at least one step, got {steps}")
        if guides and context is None:
            raise ValueError("guides need a context")
        self.steps, self.guides, self.context = steps, tuple(guides), context
        self.trajectory, self.progress = trajectory, progress

    def sample(
        self,
        process: Process,
        network: Network,
        start: SequenceBatch,
        noise: Noise,
        constraints: ConstraintSet | None = None,
        first: int = 0,
    ) -> Samples:
        batch, running = (
            start,
            None if constraints is None else constraints.start(start.layout.count, start.tokens.device),
        )
        rows = torch.arange(start.layout.count, device=start.tokens.device)
        finished: dict[int, Tensor] = {}
        calls = asked = 0
        path: list[SequenceBatch] = []
        grid = process.grid(self.steps)
        for index, (t, s) in enumerate(grid[first:], start=first):
            if not len(rows):
                break
            here = noise.at(index)
            transition = process.transition(network, batch, t, s)
            for guide in self.guides:
                if type(transition) not in guide.supports:
                    raise ValueError(f"{type(guide).__name__} cannot tilt a {type(transition).__name__}")
                assert self.context is not None
                transition = guide.reweight(transition, batch, t, s, self.context(batch, here))
            move = transition.draw(batch, here, constraints, running)
            calls, asked = calls + (move.network_rows > 0), asked + move.network_rows
            batch, running, noise, rows = _retire(move.batch, move.running, noise, rows, move.done, finished)
            if self.trajectory:
                path.append(batch)
            if self.progress is not None:
                self.progress(index + 1, len(grid))
        _retire(batch, running, noise, rows, torch.ones_like(rows, dtype=torch.bool), finished)
        return Samples(tuple(finished[n] for n in range(start.layout.count)), calls, asked, tuple(path))


def _retire(
    batch: SequenceBatch,
    running: Any,
    noise: Noise,
    rows: Int[Tensor, " N"],
    done: Bool[Tensor, " N"],
    finished: dict[int, Tensor],
) -> tuple[SequenceBatch, Any, Noise, Int[Tensor, " K"]]:
    """Move the rows that are done into `finished`, keyed by their place at the start."""
    if not bool(done.any()):
        return batch, running, noise, rows
    for row in done.nonzero()[:, 0].tolist():
        finished[int(rows[row])] = batch.tokens[row, : int(batch.layout.lengths[row])]
    keep = (~done).nonzero()[:, 0]
    left = batch.select(keep)
    width = int(left.layout.lengths.max()) if len(keep) else 0
    if width < left.layout.shape[1]:
        layout = Layout.padded(left.layout.lengths, width, left.layout.mask)
        fixed = None if left.fixed is None else left.fixed[:, :width]
        left = replace(left, tokens=left.tokens[:, :width], layout=layout, fixed=fixed)
    return left, None if running is None else running.select(keep), noise.select(keep), rows[keep]

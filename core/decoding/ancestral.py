"""Token by token from a decoding state."""

from __future__ import annotations

from collections.abc import Callable

import torch

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.base import Sampler, Samples, Truncation
from core.guidance.constraint_set import ConstraintSet
from core.processes.autoregressive import Autoregressive
from core.processes.base import Network, Process, RecurrentNetwork
from core.registry import Paper


class Ancestral(Sampler):
    """Reads each token once: constant or growing state instead of the whole prefix.

    Draws the same tokens as `Stepwise` from the same noise. Needs an autoregressive process
    and a network with `init_state` and `step`.
    """

    paper = Paper("ours", "Ancestral sampling on a decoding state")

    def __init__(
        self,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        min_p: float = 0.0,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.truncation, self.progress = Truncation(temperature, top_k, top_p, min_p), progress

    def sample(
        self,
        process: Process,
        network: Network,
        start: SequenceBatch,
        noise: Noise,
        constraints: ConstraintSet | None = None,
    ) -> Samples:
        if not isinstance(process, Autoregressive) or not isinstance(network, RecurrentNetwork):
            raise ValueError("ancestral sampling needs an autoregressive process and a network that decodes")
        count, device = start.layout.count, start.tokens.device
        state = network.init_state(count)
        running = None if constraints is None else constraints.start(count, device)
        rows = torch.arange(count, device=device)
        last = torch.full((count,), process.vocabulary.bos, device=device)
        finished: dict[int, torch.Tensor] = {}
        asked = steps = 0
        batch = start
        while len(rows):
            logits, state = network.step(last, state)
            asked, steps = asked + len(rows), steps + 1
            transition = process.append(logits, steps - 1)
            if self.truncation != Truncation():
                transition = transition.tilted(self.truncation.log_weights(transition.logits))
            move = transition.draw(batch, noise.at(steps - 1), constraints, running)
            batch, running = move.batch, move.running
            for row in move.done.nonzero()[:, 0].tolist():
                finished[int(rows[row])] = batch.tokens[row, : int(batch.layout.lengths[row])]
            keep = (~move.done).nonzero()[:, 0]
            if len(keep) < len(rows):
                batch, noise, rows, state = batch.select(keep), noise.select(keep), rows[keep], state.select(keep)
                running = None if running is None else running.select(keep)
            last = batch.tokens[:, -1]
            if self.progress is not None:
                self.progress(len(finished), count)
        return Samples(tuple(finished[n] for n in range(count)), steps, asked)

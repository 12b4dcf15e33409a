"""Token by token from a decoding state."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding._guiding import Context, Guiding
from core.decoding._reader import Asked, Readers, refuse_all_but_autoregressive
from core.decoding._retire import retire
from core.decoding.base import Sampler, Samples, Truncation
from core.guidance.constraint_set import ConstraintSet
from core.guidance.guides.base import Guide
from core.processes.base import Network, Process
from core.processes.transitions.append import Append
from core.registry import Paper


class Ancestral(Sampler):
    """Reads each token once: constant or growing state instead of the whole prefix.

    Draws the same tokens as `Stepwise` from the same noise. Needs an autoregressive process and a
    network that decodes. The tokens of `start` are a prompt: sequences with the same prompt,
    condition and memories share its reading, and go on from forks of one State. A guide's further
    conditions have a State each. Truncation acts on the guided law.
    """

    paper = Paper("ours", "Ancestral sampling on a decoding state")

    def __init__(
        self,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        min_p: float = 0.0,
        guides: Sequence[Guide] = (),
        context: Context | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.truncation, self.progress = Truncation(temperature, top_k, top_p, min_p), progress
        self.guiding = Guiding(guides, context)

    def suits(self, process: Process) -> None:
        refuse_all_but_autoregressive("ancestral", process)

    def sample(
        self,
        process: Process,
        network: Network,
        start: SequenceBatch,
        noise: Noise,
        constraints: ConstraintSet | None = None,
    ) -> Samples:
        count, device = start.layout.count, start.tokens.device
        asked = Asked(network)
        readers = Readers(process, asked, start)
        running = None if constraints is None else constraints.start(count, device)
        rows = torch.arange(count, device=device)
        finished: dict[int, torch.Tensor] = {}
        batch, step = start, 0
        while len(rows):
            here = noise.at(step)
            model = lambda condition, batch=batch: readers.under(batch, condition)  # noqa: E731
            transition = self.guiding.tilted(readers.next(batch), batch, float(step), float(step + 1), here, model)
            if self.truncation != Truncation():
                assert isinstance(transition, Append)
                transition = transition.tilted(self.truncation.log_weights(transition.logits))
            move = transition.draw(batch, here, constraints, running)
            keep, step = (~move.done).nonzero()[:, 0], step + 1
            keep = None if len(keep) == len(rows) else keep
            batch, running, noise, rows = retire(move.batch, move.running, noise, rows, move.done, finished)
            if len(rows):
                readers.advance(keep, batch.tokens[batch.layout.last()])
            if self.progress is not None:
                self.progress(len(finished), count)
        return Samples(tuple(finished[n] for n in range(count)), asked.calls, asked.rows)

"""One site after the other, in the order of its own moments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from core.data.noise import Noise, Purpose, draw
from core.data.sequence_batch import SequenceBatch
from core.decoding._guiding import Context, Guiding
from core.decoding._reader import Asked
from core.decoding._retire import retire
from core.decoding.base import Sampler, Samples
from core.errors import UserError
from core.guidance.constraint_set import ConstraintSet
from core.guidance.guides.base import Guide
from core.processes.base import Network, Process
from core.processes.mixture_flow import MixtureFlow
from core.registry import Paper


class FirstHitting(Sampler):
    """Draws the continuous-time law of a masked flow exactly, without steps of time.

    Sites leave the mask at independent moments of one law, so the next to leave is any of those left,
    each as likely, and its token comes from the posterior at that moment: one event a masked site,
    each asking the network once. Under constraints the token is drawn jointly with the sites that stay
    masked. Guides tilt where that site goes; they are told the times 0 and 1 at each event. `first`
    resumes at a later event, as `Stepwise` does at a later step. `progress` is told (finished
    sequences, sequences).
    """

    paper = Paper(
        "ours",
        "Masked Diffusion Models are Secretly Time-Agnostic Masked Models",
        "2409.02908",
        "the moments themselves are not drawn, since the network of a masked flow sees no time",
    )

    def __init__(
        self,
        guides: Sequence[Guide] = (),
        context: Context | None = None,
        trajectory: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.guiding = Guiding(guides, context)
        self.trajectory, self.progress = trajectory, progress

    def suits(self, process: Process) -> None:
        if not (isinstance(process, MixtureFlow) and process.source == "mask"):
            raise UserError("first_hitting needs a mixture_flow with source=mask: use sampler=stepwise")

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
        assert isinstance(process, MixtureFlow)
        rows = torch.arange(start.layout.count, device=start.tokens.device)
        finished: dict[int, Tensor] = {}
        path: list[SequenceBatch] = []
        asked, event = Asked(network), first
        shown = (process.transition(asked, start, 0.0, 1.0).jump == 0).all(1)
        batch, _, noise, rows = retire(start, None, noise, rows, shown, finished)
        while len(rows):
            here = noise.at(event)
            # From t = 0 to s = 1 every masked site would move; one of them is let through.
            every = process.transition(asked, batch, 0.0, 1.0)
            masked = every.jump > 0
            even = torch.zeros_like(every.jump).masked_fill(~masked, -torch.inf)
            chosen = draw(even, here.uniform(1, Purpose.JUMP, lane=1)[:, 0])
            model = lambda condition, batch=batch: process.transition(  # noqa: E731
                asked, replace(batch, condition=condition), 0.0, 1.0
            )
            one = replace(every, jump=torch.zeros_like(every.jump).scatter(1, chosen[:, None], 1.0))
            tilted = self.guiding.tilted(one, batch, 0.0, 1.0, here, model)
            move = tilted.draw(batch, here, constraints, None)
            event += 1
            batch, _, noise, rows = retire(move.batch, None, noise, rows, masked.sum(1) == 1, finished)
            if self.trajectory:
                path.append(batch)
            if self.progress is not None:
                self.progress(len(finished), start.layout.count)
        return Samples(tuple(finished[n] for n in range(start.layout.count)), asked.calls, asked.rows, tuple(path))

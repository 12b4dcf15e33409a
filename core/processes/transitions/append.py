"""One more token at the end of each sequence, or the end itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from core.data.layout import Layout
from core.data.noise import Noise, Purpose, draw
from core.data.sequence_batch import SequenceBatch
from core.guidance.constraint_set import ConstraintSet
from core.processes.transitions.base import Move, Transition
from core.registry import Paper


@dataclass(frozen=True, eq=False)
class Append(Transition):
    """Next-token logits `[N, V + 1]`, the last column being the end.

    Constraints mask the tokens after which no accepted completion fits: the law is locally
    renormalised, which is not the conditional law of the whole sequence.
    """

    paper = Paper("ours", "Ancestral sampling")

    logits: Float[Tensor, "N V1"]

    def tilted(self, log_weights: Float[Tensor, "N V1"]) -> Append:
        return replace(self, logits=self.logits.log_softmax(-1) + log_weights)

    def draw(self, batch: SequenceBatch, noise: Noise, constraints: ConstraintSet | None, running: Any) -> Move:
        logits = self.logits
        if constraints is not None:
            logits = logits.masked_fill(~constraints.allowed(running), -torch.inf)
        chosen = draw(logits, noise.uniform(1, Purpose.TOKEN)[:, 0])
        if constraints is not None:
            running = constraints.advance(running, chosen)
        done = chosen == logits.shape[-1] - 1
        return Move(appended(batch, chosen, ~done), done, running, len(chosen))


def appended(batch: SequenceBatch, chosen: Tensor, grow: Tensor) -> SequenceBatch:
    """`batch` with `chosen[n]` written behind the rows where `grow` holds."""
    lengths = batch.layout.lengths
    width = batch.layout.shape[1] + 1
    tokens = torch.nn.functional.pad(batch.tokens, (0, 1))
    tokens[grow, lengths[grow]] = chosen[grow]
    return replace(batch, tokens=tokens, layout=Layout.padded(lengths + grow, width, batch.layout.mask))

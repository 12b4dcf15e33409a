"""One more token at the end of each sequence, or the end itself."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.guidance.constraint_set import ConstraintSet
from core.guidance.constraint_state import ConstraintState
from core.processes.transitions._contrast import contrast
from core.processes.transitions._outcome import draw_outcome
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
        return replace(self, logits=self.logits + log_weights)

    def away_from(self, other: Append, weight: float) -> Append:
        """The law of the next token is mixed."""
        return replace(self, logits=contrast(self.logits, other.logits, weight))

    def law(self, batch: SequenceBatch) -> Float[Tensor, "N V1"]:
        """Normalised log-probabilities of the next token."""
        return self.logits.log_softmax(-1)

    def draw(self, batch: SequenceBatch, noise: Noise, constraints: ConstraintSet | None, running: Any) -> Move:
        logits = self.logits
        if constraints is not None:
            running = caught_up(running, batch, constraints)
            logits = logits.masked_fill(~constraints.allowed(running), -torch.inf)
        chosen = draw_outcome(logits, noise)
        if constraints is not None:
            running = constraints.advance(running, chosen)
        done = chosen == logits.shape[-1] - 1
        return Move(appended(batch, chosen, ~done), done, running)


def caught_up(running: ConstraintState, batch: SequenceBatch, constraints: ConstraintSet) -> ConstraintState:
    """The state behind all tokens of `batch`, of which it may have read only the first."""
    end = batch.tokens.new_full((batch.layout.count, 1), constraints.size)
    tokens = torch.cat([torch.where(batch.layout.valid, batch.tokens, constraints.size), end], 1)
    lengths, longest = batch.layout.lengths, max(constraints.feasible_lengths)
    behind = int((lengths - running.position).max()) if len(lengths) else 0
    if behind > 0 and int(lengths.max()) > longest:
        raise RuntimeError(f"row {int(lengths.argmax())}: no accepted sequence has more than {longest} tokens")
    for _ in range(behind):
        running = constraints.advance(running, tokens.gather(1, running.position[:, None])[:, 0])
    return running


def appended(batch: SequenceBatch, chosen: Tensor, grow: Tensor) -> SequenceBatch:
    """`batch` with `chosen[n]` written behind the rows where `grow` holds."""
    lengths = batch.layout.lengths
    width = batch.layout.shape[1] + 1
    tokens = torch.nn.functional.pad(batch.tokens, (0, 1))
    tokens[grow, lengths[grow]] = chosen[grow]
    fixed = None if batch.fixed is None else torch.nn.functional.pad(batch.fixed, (0, 1))
    return replace(batch, tokens=tokens, layout=Layout.padded(lengths + grow, width, batch.layout.mask), fixed=fixed)

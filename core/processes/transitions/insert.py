"""One more token anywhere in each sequence, or the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.guidance.constraint_set import ConstraintSet
from core.processes.transitions._contrast import contrast
from core.processes.transitions._outcome import draw_outcome
from core.processes.transitions.base import Move, Transition
from core.registry import Paper


@dataclass(frozen=True, eq=False)
class Insert(Transition):
    """Unnormalised log-probabilities of token v into slot g, `[N, G, V]`, and of stopping.

    Slot g lies before token g; slots behind a row's length and closed ones are never drawn.
    Outcomes are numbered g V + v, stopping comes last: so are the weights of a tilt,
    `[N, G V + 1]`. Constraints mask the outcomes from which no accepted sequence is reached by
    further insertions: the law is locally renormalised. One field a token.
    """

    paper = Paper("S052", "Insertion Language Model", deviations="constraints mask slots and tokens")

    insertion: Float[Tensor, "N G V"]
    stop: Float[Tensor, " N"]

    def tilted(self, log_weights: Float[Tensor, "N O"]) -> Insert:
        return replace(
            self,
            insertion=self.insertion + log_weights[:, :-1].reshape(self.insertion.shape),
            stop=self.stop + log_weights[:, -1],
        )

    def away_from(self, other: Insert, weight: float) -> Insert:
        """The joint law of slots, tokens and the end is mixed, and so how likely it is to stop."""
        insertion = contrast(self.insertion, other.insertion, weight)
        return replace(self, insertion=insertion, stop=contrast(self.stop, other.stop, weight))

    def law(self, batch: SequenceBatch) -> Float[Tensor, "N O"]:
        """Normalised log-probabilities of all outcomes."""
        return self._weights(batch).log_softmax(-1)

    def _weights(self, batch: SequenceBatch) -> Float[Tensor, "N O"]:
        slots = torch.arange(self.insertion.shape[1], device=self.stop.device)
        shut = slots > batch.layout.lengths[:, None]
        if batch.closed is not None:
            shut = shut | batch.closed
        return torch.cat([self.insertion.masked_fill(shut[..., None], -torch.inf).flatten(1), self.stop[:, None]], 1)

    def draw(self, batch: SequenceBatch, noise: Noise, constraints: ConstraintSet | None, running: Any) -> Move:
        # Not normalised: a sum over the slots would depend on how wide the batch is.
        weights = self._weights(batch)
        if constraints is not None:
            lengths = batch.layout.lengths
            inserts = constraints.insertable(batch.tokens, lengths, batch.closed).flatten(1)
            allowed = torch.cat([inserts, constraints.feasible(batch.tokens, lengths)[:, None]], 1)
            weights = weights.masked_fill(~allowed, -torch.inf)
        chosen = draw_outcome(weights, noise)
        done = chosen == weights.shape[1] - 1
        size = self.insertion.shape[2]
        return Move(inserted(batch, chosen // size, chosen % size, ~done), done, running)


def inserted(
    batch: SequenceBatch, slots: Int[Tensor, " N"], chosen: Int[Tensor, " N"], grow: Bool[Tensor, " N"]
) -> SequenceBatch:
    """`batch` with `chosen[n]` before token `slots[n]` of the rows where `grow` holds."""
    lengths, width = batch.layout.lengths, batch.layout.shape[1] + 1
    slots = torch.where(grow, slots, width)
    place = torch.arange(width, device=slots.device).expand(len(slots), width)
    source = place - (place > slots[:, None]).long()
    here = place == slots[:, None]
    tokens = torch.nn.functional.pad(batch.tokens, (0, 1)).gather(1, source)
    tokens = torch.where(here, chosen[:, None], tokens)
    fixed, closed = batch.fixed, batch.closed
    if fixed is not None:
        fixed = torch.nn.functional.pad(fixed, (0, 1)).gather(1, source) & ~here
    if closed is not None:
        # The gap that the token entered was open, and so are both that it leaves.
        closed = closed.gather(1, torch.cat([source, source[:, -1:] + 1], 1).clamp_max(width - 1))
    layout = Layout.padded(lengths + grow, width, batch.layout.mask)
    return replace(batch, tokens=tokens, layout=layout, fixed=fixed, closed=closed)

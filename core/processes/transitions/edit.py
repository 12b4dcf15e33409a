"""Each token is kept, replaced or deleted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.data.layout import Layout
from core.data.noise import Noise, Purpose, draw
from core.data.sequence_batch import SequenceBatch
from core.guidance.constraint_set import ConstraintSet
from core.processes._sites import moving
from core.processes.transitions._contrast import contrast
from core.processes.transitions.base import Move, Transition
from core.registry import Paper


@dataclass(frozen=True, eq=False)
class Edit(Transition):
    """Unnormalised log-probabilities of what each site becomes, `[N, L, V + 1]`, the last its deletion.

    Keeping a token and replacing it by itself are one outcome. Fixed sites are kept. Under
    constraints all sites are drawn jointly, exactly from their product law given that what
    remains is accepted, at whatever feasible length. One field a token.
    """

    paper = Paper("ours", "Keep, replace or delete in one step", deviations="insertions are a kind of their own")

    logits: Float[Tensor, "N L V1"]

    @staticmethod
    def of(
        batch: SequenceBatch,
        keep: Float[Tensor, "N L"],
        replacement: Float[Tensor, "N L V"],
        deletion: Float[Tensor, "N L"],
    ) -> Edit:
        """From the probabilities of the three, the tokens of `batch` being data tokens."""
        present = torch.where(batch.layout.valid, batch.tokens, 0)[..., None]
        mass = replacement.scatter_add(-1, present, keep[..., None])
        return Edit(torch.cat([mass, deletion[..., None]], -1).log())

    def tilted(self, log_weights: Float[Tensor, "N L V1"]) -> Edit:
        return replace(self, logits=self.logits + log_weights)

    def away_from(self, other: Edit, weight: float) -> Edit:
        """The one-step kernel of each site is mixed: the mixture of rates, as steps become short."""
        return replace(self, logits=contrast(self.logits, other.logits, weight))

    def law(self, batch: SequenceBatch) -> Float[Tensor, "N L V1"]:
        """Normalised log-probabilities of each site, certain where it is fixed or holds nothing."""
        gone = self.logits.shape[-1] - 1
        certain = torch.where(batch.layout.valid, batch.tokens, gone)
        forced = torch.full_like(self.logits, -torch.inf).scatter(-1, certain[..., None], 0.0)
        return torch.where(moving(batch)[..., None], self.logits.log_softmax(-1), forced)

    def draw(self, batch: SequenceBatch, noise: Noise, constraints: ConstraintSet | None, running: Any) -> Move:
        law = self.law(batch)
        uniform = noise.uniform(law.shape[1], Purpose.TOKEN)
        chosen = draw(law, uniform) if constraints is None else constraints.edit(law, uniform)
        done = torch.zeros(len(chosen), dtype=torch.bool, device=chosen.device)
        return Move(edited(batch, chosen, law.shape[-1] - 1), done, running)


def edited(batch: SequenceBatch, chosen: Int[Tensor, "N L"], gone: int) -> SequenceBatch:
    """`batch` with the tokens chosen, those equal to `gone` taken out and the rest moved up."""
    stays = chosen != gone
    order = (~stays).long().argsort(dim=1, stable=True)
    lengths = stays.sum(1)
    tokens = torch.where(stays, chosen, 0).gather(1, order)
    fixed = None if batch.fixed is None else (batch.fixed & stays).gather(1, order)
    layout = Layout.padded(lengths, tokens.shape[1], batch.layout.mask)
    return replace(batch, tokens=tokens, layout=layout, fixed=fixed)

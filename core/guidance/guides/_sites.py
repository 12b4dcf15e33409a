"""The sites that a guide looks at in one step, and how weights on their tokens become a tilt."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.data.layout import Layout
from core.data.noise import Noise, Purpose
from core.data.sequence_batch import SequenceBatch
from core.processes.transitions.substitute import Substitute

# No weight is beyond these, in nats.
CAP = 80.0


@dataclass(frozen=True, eq=False)
class Sites:
    """P sites of R rows, each row as a whole sequence in D ways.

    A site that shows no data token has nothing to stay for: its tilt says where it goes and leaves when it
    goes alone, so only the sites that move in this very step are looked at. Any other site that may change
    can be, whether it moves or not. `rows` are those of the batch, `noise` theirs. completed: the sequences,
    where D draws from the posterior stand at the sites that show no data token, with the same random numbers
    for whatever else is tried. places, chosen: the sites of each row, and which of them are its own: rows
    may have fewer than P. log_law, jump: where such a site goes if it moves, and how likely it moves. blank:
    whether it shows no data token.
    """

    step: Substitute
    layout: Layout
    rows: Int[Tensor, " R"]
    noise: Noise
    completed: Int[Tensor, "R D S"]
    places: Int[Tensor, "R P"]
    chosen: Bool[Tensor, "R P"]
    log_law: Float[Tensor, "R P V"]
    jump: Float[Tensor, "R P"]
    blank: Bool[Tensor, "R P"]
    shape: tuple[int, ...]

    @staticmethod
    def of(
        step: Substitute, batch: SequenceBatch, noise: Noise, count: int | None, draws: int, waiting: bool = False
    ) -> Sites | None:
        """At most `count` sites of each row, by the row's own noise, or all; None where none may change.

        waiting: look at the sites without a token that do not move in this step, too.
        """
        free, chance = step.jump > 0, noise.uniform(step.jump.shape[1], Purpose.JUMP)
        asked = free
        if step.blank is not None and step.log_weights is None and not waiting:
            asked = torch.where(step.blank, chance < step.jump, free)
        rows = asked.any(1).nonzero()[:, 0]
        if not len(rows):
            return None
        step = step.kept(rows)
        jump, log_law = step.law(batch, rows)
        own, tokens = noise.select(rows), batch.tokens.flatten(1)[rows]
        blank = tokens >= log_law.shape[-1]
        eligible = free[rows] & (waiting | ~blank | (chance[rows] < jump))
        places, chosen = _drawn(eligible, own, count)
        if not places.shape[1]:
            return None
        several = 1 if not bool(blank.any()) else draws
        completed = step.complete(batch, rows.repeat_interleave(several), own.fork(several))
        at = lambda values: values.gather(1, places)  # noqa: E731
        return Sites(
            *(step, batch.layout.select(rows), rows, own, completed.unflatten(0, (len(rows), several)), places, chosen),
            log_law.gather(1, places[..., None].expand(*places.shape, log_law.shape[-1])),
            *(at(jump), at(blank), tuple(batch.tokens.shape[1:])),
        )

    @cached_property
    def standing(self) -> Int[Tensor, "R D P"]:
        """The tokens of the completed sequences at the sites."""
        return self.completed.gather(2, self.places[:, None].expand(-1, self.completed.shape[1], -1))

    @cached_property
    def still(self) -> Bool[Tensor, "R P V"]:
        """The token that every completed sequence has at a site already."""
        first = self.standing[:, :1]
        token = torch.where((self.standing == first).all(1), first[:, 0], -1)
        return token[..., None] == torch.arange(self.log_law.shape[-1], device=token.device)

    @cached_property
    def open(self) -> Bool[Tensor, "R P V"]:
        """The tokens that a chosen site may take, the one that stands there among them."""
        return self.chosen[..., None] & (self.still | (self.log_law > -torch.inf))

    @cached_property
    def kernel(self) -> Float[Tensor, "R P V"]:
        """Probabilities of what stands at each site after the step: where it goes, if it shows no data token."""
        jump = torch.where(self.blank, 1.0, self.jump)[..., None]
        return jump * self.log_law.exp() + torch.where(self.still, 1 - jump, 0.0)

    def batch(self, tokens: Int[Tensor, "Q S"], owner: Int[Tensor, " Q"]) -> SequenceBatch:
        """Sequences of the rows `owner`, to be decoded."""
        return SequenceBatch(tokens.reshape(-1, *self.shape), self.layout.select(owner))

    def tilted(self, log_weights: Float[Tensor, "R P V"]) -> Substitute:
        """The step, its kernel at the sites weighted so; a site without a token moves as often as before."""
        weights = torch.where(self.open, log_weights.clamp(-CAP, CAP), 0.0)
        total = (self.log_law + weights).logsumexp(-1, keepdim=True)
        weights = torch.where(self.blank[..., None] & self.chosen[..., None], weights - total, weights)
        every = weights.new_zeros(*self.step.jump.shape, weights.shape[-1])
        row, place = self.chosen.nonzero(as_tuple=True)
        every[self.rows[row], self.places[row, place]] = weights[row, place]
        return self.step.tilted(every)


def _drawn(
    eligible: Bool[Tensor, "R S"], noise: Noise, count: int | None
) -> tuple[Int[Tensor, "R P"], Bool[Tensor, "R P"]]:
    """At most `count` of the eligible sites of each row, and which of the places hold one."""
    most = int(eligible.sum(1).max()) if eligible.numel() else 0
    most = most if count is None else min(most, count)
    order = noise.uniform(eligible.shape[1], Purpose.GUIDE).masked_fill(~eligible, 2.0).argsort(1)[:, :most]
    return order, eligible.gather(1, order)

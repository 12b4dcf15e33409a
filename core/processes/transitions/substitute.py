"""Sites jump to another token, each with its own probability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.data.noise import Noise, Purpose, draw
from core.data.sequence_batch import SequenceBatch
from core.guidance.constraint_set import ConstraintSet
from core.processes.transitions._contrast import contrast
from core.processes.transitions.base import Move, Transition
from core.registry import Paper


@dataclass(frozen=True, eq=False)
class Substitute(Transition):
    """Each site stays with probability 1 - jump, else takes a draw from its posterior.

    The posterior is lazy: `posterior(rows)` gives unnormalised log-probabilities `[R, S, V]` of
    those rows, and is only asked for rows in which a site moves. `settled` holds the token of
    sites that are final, -1 elsewhere; the others are drawn jointly under constraints. recalled:
    whether the sequences take along what the network said of them.
    """

    paper = Paper("S004", "Discrete Flow Matching", "2407.15595", "exact conditional kernel instead of Euler's")

    posterior: Callable[[Int[Tensor, " R"]], Float[Tensor, "R S V"]]
    jump: Float[Tensor, "N S"]
    settled: Int[Tensor, "N S"]
    log_weights: Float[Tensor, "N S V"] | None = None
    recalled: bool = False

    def tilted(self, log_weights: Float[Tensor, "N S V"]) -> Substitute:
        total = log_weights if self.log_weights is None else self.log_weights + log_weights
        return replace(self, log_weights=total)

    def away_from(self, other: Substitute, weight: float) -> Substitute:
        """The log-posteriors of the data tokens are mixed, and each site jumps as often as before.

        Guidance of rates (Nisonoff et al.) mixes the logarithms of the jump rates, whose sum then changes: sites
        jump sooner where the two laws differ. Both tend to the same law of where a masked site goes; with a
        uniform source the mixed posterior also weighs staying at the present token, which rates leave out.
        """
        mixed = lambda rows: contrast(self.posterior(rows), other.posterior(rows), weight)  # noqa: E731
        return replace(self, posterior=mixed)

    def law(self, batch: SequenceBatch, rows: Int[Tensor, " R"]) -> tuple[Float[Tensor, "R S"], Float[Tensor, "R S V"]]:
        """Jump probability and normalised log-posterior of some rows, tilt included.

        Tilting the kernel (1 - j) delta_x + j P by exp(w) gives again such a kernel: the mass
        that stays is weighted by w at the present token (0 for a token outside the data).
        """
        logits, jump = self.posterior(rows), self.jump[rows]
        if self.log_weights is None:
            return jump, logits.log_softmax(-1)
        weights = self.log_weights[rows]
        mass = logits.log_softmax(-1) + weights
        moved = jump.log() + mass.logsumexp(-1)
        present = batch.tokens.flatten(1)[rows]
        inside = present < weights.shape[-1]
        kept = weights.gather(-1, torch.where(inside, present, 0)[..., None])[..., 0]
        stayed = torch.log1p(-jump) + torch.where(inside, kept, torch.zeros_like(kept))
        return (moved - torch.logaddexp(moved, stayed)).exp(), mass.log_softmax(-1)

    def draw(self, batch: SequenceBatch, noise: Noise, constraints: ConstraintSet | None, running: Any) -> Move:
        tokens = batch.tokens.flatten(1)
        count, sites = tokens.shape
        chance = noise.uniform(sites, Purpose.JUMP)
        moves = chance < self.jump
        # A tilt may raise the jump probability, so only an untilted step can skip rows early.
        candidates = moves if self.log_weights is None else self.jump > 0
        rows = candidates.any(1).nonzero()[:, 0]
        done = torch.zeros(count, dtype=torch.bool, device=tokens.device)
        if not len(rows):
            return Move(batch, done, running)
        logits = self.posterior(rows)
        jump, log_posterior = replace(self, posterior=lambda _: logits).law(batch, rows)
        moves = chance[rows] < jump
        proposal = self._propose(batch, rows, moves, log_posterior, noise.select(rows), constraints)
        after = tokens.clone()
        after[rows] = torch.where(moves, proposal, tokens[rows])
        if self.recalled:
            batch = _recalling(batch, rows, logits)
        return Move(replace(batch, tokens=after.reshape(batch.tokens.shape)), done, running)

    def _propose(
        self,
        batch: SequenceBatch,
        rows: Int[Tensor, " R"],
        moves: Bool[Tensor, "R S"],
        log_posterior: Float[Tensor, "R S V"],
        noise: Noise,
        constraints: ConstraintSet | None,
    ) -> Int[Tensor, "R S"]:
        uniform = noise.uniform(moves.shape[1], Purpose.TOKEN)
        if constraints is not None:
            lengths = batch.layout.lengths[rows] * batch.fields
            return constraints.draw(log_posterior, lengths, uniform, self.settled[rows])
        proposal = torch.zeros_like(self.settled[rows])
        proposal[moves] = draw(log_posterior[moves], uniform[moves])
        return proposal


def _recalling(batch: SequenceBatch, rows: Int[Tensor, " R"], logits: Float[Tensor, "R S V"]) -> SequenceBatch:
    """`batch` with the network's answer for some rows; the others keep the one before."""
    said = logits.softmax(-1)
    held = said.new_zeros(batch.layout.count, *said.shape[1:]) if batch.estimate is None else batch.estimate.clone()
    held[rows] = said
    return replace(batch, estimate=held)

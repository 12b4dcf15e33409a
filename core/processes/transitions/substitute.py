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
from core.processes._sites import valid_sites
from core.processes.transitions._contrast import contrast
from core.processes.transitions.base import Move, Transition
from core.registry import Paper


@dataclass(frozen=True, eq=False)
class Substitute(Transition):
    """Each site stays with probability 1 - jump, else takes a draw from its posterior.

    The posterior is lazy: `posterior(rows)` gives unnormalised log-probabilities `[R, S, V]` of
    those rows, and is only asked for rows in which a site moves. It is that of x_s, noise included
    where the process redraws sites; a step to s = 1 has that of the data in every process. `settled` holds the token of
    sites that are final, -1 elsewhere; the others are drawn jointly under constraints. recalled:
    whether the sequences take along what the network said of them. blank: the sites that show no data
    token, None where nobody said; a guide that knows them asks for fewer rows.
    """

    paper = Paper("S004", "Discrete Flow Matching", "2407.15595", "exact conditional kernel instead of Euler's")

    posterior: Callable[[Int[Tensor, " R"]], Float[Tensor, "R S V"]]
    jump: Float[Tensor, "N S"]
    settled: Int[Tensor, "N S"]
    log_weights: Float[Tensor, "N S V"] | None = None
    recalled: bool = False
    blank: Bool[Tensor, "N S"] | None = None

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

    def kept(self, rows: Int[Tensor, " R"]) -> Substitute:
        """The same law, what the network says of `rows` at hand: of these it is not asked again."""
        logits = self.posterior(rows)
        place = torch.full((len(self.settled),), -1, device=rows.device)
        place[rows] = torch.arange(len(rows), device=rows.device)
        held = lambda wanted: bool((place[wanted] >= 0).all())  # noqa: E731
        known = lambda wanted: logits[place[wanted]] if held(wanted) else self.posterior(wanted)  # noqa: E731
        return replace(self, posterior=known)

    def complete(self, batch: SequenceBatch, rows: Int[Tensor, " R"], noise: Noise) -> Int[Tensor, "R S"]:
        """The tokens of some rows, each site that shows no data token taking a draw from its posterior.

        Sites are drawn independently, tilt included, whatever the constraints. `noise` is that of these rows,
        which may repeat, and of a purpose of its own: a step drawn from the same noise is another draw.
        """
        _, log_posterior = self.law(batch, rows)
        tokens = batch.tokens.flatten(1)[rows].clone()
        open_ = (tokens >= log_posterior.shape[-1]) & valid_sites(batch)[rows]
        uniform = noise.uniform(tokens.shape[1], Purpose.COMPLETE)
        tokens[open_] = draw(log_posterior[open_], uniform[open_])
        return tokens

    def draw(self, batch: SequenceBatch, noise: Noise, constraints: ConstraintSet | None, running: Any) -> Move:
        tokens = batch.tokens.flatten(1)
        count, sites = tokens.shape
        chance = noise.uniform(sites, Purpose.JUMP)
        candidates = chance < self.jump
        if self.log_weights is not None:
            # A tilt may raise the jump probability of the sites that it touches.
            candidates = candidates | ((self.jump > 0) & (self.log_weights != 0).any(-1))
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

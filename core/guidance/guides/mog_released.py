"""The public sampler of multi-objective-guided flow matching, with its defects."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from core.data.noise import Noise, Purpose
from core.data.sequence_batch import SequenceBatch
from core.guidance.guides._candidates import Candidates
from core.guidance.guides._gains import angles, importance, mid_ranks, standardised
from core.guidance.guides._sites import CAP, Sites
from core.guidance.guides.base import Guide, GuideContext
from core.processes.transitions.base import Transition
from core.processes.transitions.substitute import Substitute
from core.registry import Paper

_PARTS = 64
_SPECIALS, _SENTINEL = 4, -10.0
_ANGLE, _NARROW, _WIDE = (math.radians(degrees) for degrees in (45.0, 15.0, 75.0))
_TARGET, _MEMORY = 0.3, 0.5


class MogReleased(Guide):
    """One site of each sequence may move, to the one candidate that scores best; all others stay.

    For comparison only: this is what the code released with the paper does, on steps of ours. Its defects, which
    `mog` repairs: one vector of shares, one cone and one mean of rejections serve the whole batch, so that a
    sequence depends on the others; the jump leaves out how long the step is and all candidates but the best;
    the last step changes nothing; strength 0 still moves by the cone alone. With `is_peptide` four special
    ids stand among the candidates with a gain of -10 each, which leaves the direction next to no say in the
    score. An alphabet of four letters or fewer has no such ids: its letters get the -10 themselves, and nothing
    is ever accepted. The released command line cannot turn this off, as it reads `False` as true.

    Where the source is a mask, which the paper has not, other sites without a token follow the unguided step.
    """

    paper = Paper(
        "S001",
        "Multi-Objective-Guided Discrete Flow Matching",
        "2505.07086",
        "none wanted: the released sampler, its rates averaged over each step, ties sharing a rank",
    )
    supports = frozenset({Substitute})
    scoring = True
    broken_laws = frozenset({"strength", "batch"})

    def __init__(
        self, strength: float = 1.0, direction: float = 1.0, rate: float = 1.0, is_peptide: bool = True
    ) -> None:
        super().__init__(strength)
        self.direction, self.rate, self.is_peptide = direction, rate, is_peptide

    def reweight(
        self, transition: Transition, batch: SequenceBatch, t: float, s: float, context: GuideContext
    ) -> Transition:
        assert isinstance(transition, Substitute)
        found = Sites.of(transition, batch, context.noise, 1, 1, waiting=True)
        if found is None:
            return transition
        candidates, targets = Candidates.of(found, context), context.scoreboard.targets
        # One state for the batch, kept under every row of it.
        state = context.memory.recall(found.noise, (_ANGLE, _TARGET))[0]
        gains = candidates.gains[:, 0] * importance(found.noise, targets)
        towards = self.lattice_weights(found.noise, len(targets))
        token, score, inside, gaining = self.proposals(gains, candidates.valid[:, 0], towards, float(state[0]))
        context.memory.keep(found.noise, self._next_cone(state, inside, gaining).expand(len(found.rows), 2))
        return self._one_move(found, batch, token, score, s - t, last=s >= 1)

    def lattice_weights(self, noise: Noise, objectives: int) -> Float[Tensor, " M"]:
        """A point of the Das-Dennis lattice of 64 parts, some of which may be none; by the noise of the first row."""
        places = _PARTS + objectives - 1
        order = noise.select(torch.tensor([0])).at(0).uniform(places, Purpose.GUIDE, lane=3)[0].argsort()
        bars = order[: objectives - 1].sort().values
        ends = torch.cat([bars.new_tensor([-1]), bars, bars.new_tensor([places])])
        return (ends.diff() - 1).double() / _PARTS

    def proposals(
        self, gains: Float[Tensor, "R V M"], valid: Bool[Tensor, "R V"], towards: Float[Tensor, " M"], angle: float
    ) -> tuple[Int[Tensor, " R"], Float[Tensor, " R"], Int[Tensor, " R"], Int[Tensor, " R"]]:
        """Each row's best candidate and its score, -1 for none; how many lie inside the cone, and how many gain."""
        gains, valid = self.spoilt(gains, valid)
        score, _ = self.scores(gains, valid, towards)
        apart = angles(gains, towards)
        gaining = valid & (apart < math.pi / 2)
        inside = gaining & (apart <= angle)
        taken = torch.where(inside.any(1, keepdim=True), inside, gaining)
        best = torch.where(taken, score, -torch.inf).max(1)
        # The special ids, where they stand among the candidates, come last.
        return torch.where(taken.any(1), best.indices, -1), best.values, inside.sum(1), gaining.sum(1)

    def spoilt(
        self, gains: Float[Tensor, "R V M"], valid: Bool[Tensor, "R V"]
    ) -> tuple[Float[Tensor, "R W M"], Bool[Tensor, "R W"]]:
        """The candidates as the released code has them, special ids and all."""
        if not self.is_peptide:
            return gains, valid
        if gains.shape[1] <= _SPECIALS:
            return torch.full_like(gains, _SENTINEL), valid
        more = gains.new_full((len(gains), _SPECIALS, gains.shape[2]), _SENTINEL)
        return torch.cat([gains, more], 1), torch.cat([valid, torch.ones_like(more[..., 0], dtype=torch.bool)], 1)

    def scores(
        self, gains: Float[Tensor, "R W M"], valid: Bool[Tensor, "R W"], towards: Float[Tensor, " M"]
    ) -> tuple[Float[Tensor, "R W"], Float[Tensor, "R W"]]:
        """S of each candidate, and the part of it that is the direction, standardised."""
        rank = torch.stack([mid_ranks(column, valid) for column in gains.unbind(-1)]).mean(0)
        along = standardised((gains * towards).sum(-1), valid)
        return standardised(rank, valid) + self.direction * along, along

    def _next_cone(
        self, state: Float[Tensor, " 2"], inside: Int[Tensor, " R"], gaining: Int[Tensor, " R"]
    ) -> Float[Tensor, " 2"]:
        if not int(gaining.sum()):
            return state
        mean = _MEMORY * state[1] + (1 - _MEMORY) * (1 - inside.sum() / gaining.sum().double())
        return torch.stack([(state[0] * (self.rate * (mean - _TARGET)).exp()).clamp(_NARROW, _WIDE), mean])

    def _one_move(
        self,
        found: Sites,
        batch: SequenceBatch,
        token: Int[Tensor, " R"],
        score: Float[Tensor, " R"],
        h: float,
        last: bool,
    ) -> Substitute:
        """The step in which the proposals are all that may happen to sites that show a token."""
        step, place, size = found.step, found.places[:, 0], found.log_law.shape[-1]
        tokens = batch.tokens.flatten(1)
        wanted = torch.zeros(*tokens.shape, size, dtype=torch.float64, device=tokens.device)
        if last:
            # What shows a token draws that one again, unless constraints need another.
            held = torch.where(tokens < size, CAP, 0.0).double()[..., None]
            jump, wanted = step.jump, wanted.scatter(-1, tokens.clamp_max(size - 1)[..., None], held)
        else:
            law = found.log_law[:, 0].gather(1, token.clamp_min(0)[:, None])[:, 0].exp()
            base = -torch.log1p(-found.jump[:, 0].clamp_max(1 - 1e-12)) / h * law
            chance = -torch.expm1(-base * (self.strength * score).exp())
            jump = torch.where(tokens < size, 0.0, step.jump)
            jump[found.rows, place] = torch.where(token < 0, 0.0, chance).to(jump.dtype)
            moved = (token >= 0).nonzero()[:, 0]
            wanted[found.rows[moved], place[moved], token[moved]] = CAP
        posterior = lambda rows: step.law(batch, rows)[1] + wanted[rows]  # noqa: E731
        return replace(step, jump=jump, posterior=posterior, log_weights=None)

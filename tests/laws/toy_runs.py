"""Whole runs of the toys of every kind through the one sampler, from sequences of several lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.stepwise import Stepwise
from core.guidance.constraint_set import ConstraintSet
from core.guidance.guides.base import Guide, GuideContext
from core.guidance.objectives.base import Scoreboard
from core.processes.base import Network, Process
from core.processes.transitions import registry as transitions
from core.processes.transitions.append import Append
from core.processes.transitions.base import Transition
from core.processes.transitions.drift import Drift
from core.processes.transitions.edit import Edit
from core.processes.transitions.insert import Insert
from core.processes.transitions.substitute import Substitute
from core.registry import Paper
from tests.laws.toy_drift import ToyDrift, velocity
from tests.laws.toy_kinds import KINDS, LONGEST, VOCABULARY, constraints
from tests.laws.toy_objectives import context_on, two_letters
from tests.laws.toy_projections import Box, Mean

NAMES = (*KINDS, "drift")
STEPS = 4


@dataclass(frozen=True, eq=False)
class Run:
    """`wide` columns of padding behind the longest row; `hold` fixes the first site or number.

    Where it is `conditional`, every sequence has a condition, by its id, and the network reads it. scores: the
    objectives of guides, by default as many A and as many B as possible.
    """

    name: str
    guides: Sequence[Guide] = ()
    rules: ConstraintSet | None = None
    wide: int = 0
    hold: bool = False
    conditional: bool = False
    scores: Scoreboard | None = None

    def parts(self) -> tuple[Process, Network]:
        if self.name == "drift":
            process, network = ToyDrift(VOCABULARY, proposals=4), velocity
        else:
            kind = KINDS[self.name]()
            process, network = kind.process, kind.network
        return process, _moved(network) if self.conditional else network

    def start(self, noise: Noise) -> SequenceBatch:
        """Lengths go by the sequence's id, so that they do not depend on the batch."""
        process, _ = self.parts()
        batch = process.prior(2 + noise.sequences % 3, noise)
        if self.hold:
            batch = _held(batch, self.name)
        if self.conditional:
            batch = replace(batch, condition=0.5 + (noise.sequences % 2).double()[:, None])
        width = batch.layout.shape[1] + self.wide
        more = (0, 0) * (batch.tokens.ndim - 2) + (0, self.wide)
        pad = 0 if self.name == "drift" else VOCABULARY.pad
        fixed = None if batch.fixed is None else torch.nn.functional.pad(batch.fixed, more)
        layout = Layout.padded(batch.layout.lengths, width, batch.layout.mask)
        return replace(batch, tokens=torch.nn.functional.pad(batch.tokens, more, value=pad), layout=layout, fixed=fixed)

    def sampler(self, trajectory: bool = False) -> Stepwise:
        return Stepwise(STEPS, self.guides, context_on(self.scores or two_letters()), trajectory)

    def sequences(self, ids: Tensor) -> list[list]:
        """The finished sequences of some ids."""
        noise = Noise.start(4, ids)
        samples = self.sampler().sample(*self.parts(), self.start(noise), noise, self.rules)
        return [row.tolist() for row in samples.tokens]


def _moved(network: Network) -> Network:
    """The network, what it says moved by each sequence's condition; a row of NaN moves nothing."""

    def answer(batch: SequenceBatch, time: Tensor | None) -> Tensor:
        said = network(batch, time)
        assert batch.condition is not None
        return said + batch.condition.nan_to_num()[:, None] * torch.linspace(1, -1, said.shape[-1]).double()

    return answer


def _held(batch: SequenceBatch, name: str) -> SequenceBatch:
    """The first site is a C, or 0.25, and fixed; sequences that start empty get it."""
    if not batch.layout.shape[1]:
        layout = Layout.padded(batch.layout.lengths + 1, 1, batch.layout.mask)
        batch = replace(batch, tokens=torch.zeros(layout.shape, dtype=torch.long), layout=layout)
    fixed = torch.zeros_like(batch.tokens, dtype=torch.bool)
    fixed.flatten(1)[:, 0] = True
    tokens = torch.where(fixed, 0.25 if name == "drift" else 2, batch.tokens)
    return replace(batch, tokens=tokens.to(batch.tokens.dtype), fixed=fixed)


def rules_for(name: str) -> ConstraintSet:
    """Rules that unconstrained runs of the kind often break."""
    if name == "drift":
        return ConstraintSet([Box(0.0, 2.0), Mean(1.0)], None, range(1, LONGEST + 1))
    return constraints("forbid:AB", "contains:C", longest=8 if name == "fields" else LONGEST)


class Favour(Guide):
    """Multiplies the kernel by e^strength for each token 0 that a step brings, or by e^(strength x)
    for each number x."""

    paper = Paper("ours", "toy")
    supports = frozenset(transitions.members().values())

    def reweight(
        self, transition: Transition, batch: SequenceBatch, t: float, s: float, context: GuideContext
    ) -> Transition:
        count = batch.layout.count
        if isinstance(transition, Drift):
            inside = batch.layout.valid[:, None, :, None]
            proposals = torch.where(inside, transition.candidates(batch, context.noise), 0.0)
            # Place by place: a sum's order, so its rounding, would go with the width of the batch.
            places = proposals.sum(-1).unbind(-1)
            return transition.tilted(self.strength * sum(places, torch.zeros(count, transition.proposals).double()))
        if isinstance(transition, Insert):
            weights = torch.zeros(transition.insertion.shape, dtype=torch.float64)
            weights[..., 0] = self.strength
            return transition.tilted(torch.cat([weights.flatten(1), torch.zeros(count, 1)], 1))
        if isinstance(transition, Substitute):
            shape = (*transition.jump.shape, VOCABULARY.size)
        else:
            assert isinstance(transition, Append | Edit)
            shape = transition.logits.shape
        weights = torch.zeros(shape, dtype=torch.float64)
        weights[..., 0] = self.strength
        return transition.tilted(weights)

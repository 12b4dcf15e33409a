"""Away from what the model says without the condition."""

from __future__ import annotations

import math

import torch

from core.data.sequence_batch import SequenceBatch
from core.errors import UserError
from core.guidance.guides.base import Guide, GuideContext
from core.processes.transitions import registry as transitions
from core.processes.transitions.base import Transition
from core.registry import Paper


class ClassifierFree(Guide):
    """log p_c + w (log p_c - log p_u), p_c being the model under the sequence's condition and p_u without one.

    weight: w, so that 0 is the conditional model and the paper's and Nisonoff's guidance strength is 1 + w;
    -1 is the unconditional model. What p is depends on the kind of the step: next-token laws, the joint
    law of an insertion, the kernel of each edited site, log-posteriors of a substitution, velocities of a
    drift (`Transition.away_from`). For a substitution this is not guidance of rates: sites keep the
    schedule by which they jump.

    Costs a second question to the network a step. `UserError` for sequences without a condition.
    """

    paper = Paper(
        "ours",
        "Classifier-Free Diffusion Guidance",
        "2207.12598",
        "w = 0 is the conditional model; on transitions of every kind; rates are not what is mixed",
    )
    supports = frozenset(transitions.members().values())
    conditional = True

    def __init__(self, weight: float = 1.0) -> None:
        if not math.isfinite(weight):
            raise ValueError(f"weight {weight}: a finite number is needed")
        super().__init__(weight)

    def reweight(
        self, transition: Transition, batch: SequenceBatch, t: float, s: float, context: GuideContext
    ) -> Transition:
        if batch.condition is None:
            raise UserError("guide=classifier_free needs a condition to guide towards, add one or drop the guide")
        none = torch.full_like(batch.condition, torch.nan)
        return transition.away_from(context.model(none), self.strength)

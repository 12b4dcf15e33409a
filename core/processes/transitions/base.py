"""The contract of every transition: what one step of a process may do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from jaxtyping import Bool, Float
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.guidance.constraint_set import ConstraintSet
from core.registry import Paper

# Written out, because the run-time checker of the tests does not know `Self` in a dataclass.
Kind = TypeVar("Kind", bound="Transition")


@dataclass(frozen=True, eq=False)
class Move:
    """What a draw did: the new sequences, and which of them are finished."""

    batch: SequenceBatch
    done: Bool[Tensor, " N"]
    running: Any


@dataclass(frozen=True, eq=False)
class Transition(ABC):
    """The law of x_s given x_t, before anything is drawn; samplers and guides act on it.

    Guides change it through `tilted`, which multiplies the one-step kernel by exp(log weights)
    and normalises again; zero weights leave it as it was. Each kind says what its outcomes are:
    weights have their shape, and its `law` tells how likely they are, fixed sites included.
    `draw` follows the constraints: what it draws can always be completed to an accepted sequence,
    so nothing is discarded.
    `running` is the constraints' State where the kind needs one, else None.
    """

    paper: ClassVar[Paper]

    @abstractmethod
    def tilted(self, log_weights: Float[Tensor, "N *shape"]) -> Transition:
        """The same law, tilted."""

    @abstractmethod
    def away_from(self: Kind, other: Kind, weight: float) -> Kind:
        """The law proportional to p (p / q)^weight, p being this law and q the other's, made for the same step.

        An outcome that either law excludes is left as p has it. Weight 0 is this law, to the last bit.
        Each kind says which law of the step it takes for p.
        """

    @abstractmethod
    def draw(self, batch: SequenceBatch, noise: Noise, constraints: ConstraintSet | None, running: Any) -> Move:
        """One step of every sequence of `batch`, the sequences this transition was made for."""

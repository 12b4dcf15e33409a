"""The contract of every guide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.guidance.objectives.base import Scoreboard
from core.processes.transitions.base import Transition
from core.registry import Paper

# The law of the present step, were the sequences under another condition; a row that holds NaN is under none.
Model = Callable[[Float[Tensor, "N C"] | None], Transition]


@dataclass(frozen=True, eq=False)
class GuideContext:
    """What a guide may use: the model under another condition, decoding, and the objectives."""

    model: Model
    decode: Callable[[SequenceBatch], Sequence[Any]]
    noise: Noise
    scoreboard: Scoreboard


class Guide(ABC):
    """Tilts a transition towards what is asked for.

    A guide only multiplies the one-step kernel, so fixed tokens and constraints stay as they are.
    Its result for a sequence does not depend on the rest of the batch. `strength` 0 is the
    unguided law, reached continuously and without an early return. `supports` names the
    transition kinds it can tilt; the sampler refuses others before it draws. A `conditional` guide
    needs sequences that have a condition.
    """

    paper: ClassVar[Paper]
    supports: ClassVar[frozenset[type[Transition]]]
    conditional: ClassVar[bool] = False

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    @abstractmethod
    def reweight(
        self, transition: Transition, batch: SequenceBatch, t: float, s: float, context: GuideContext
    ) -> Transition:
        """The tilted transition."""

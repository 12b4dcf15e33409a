"""The contract of every guide."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.errors import UserError
from core.guidance.guides._memory import Memory
from core.guidance.known import Known
from core.guidance.objectives.base import Scoreboard, Target
from core.processes.transitions.base import Transition
from core.registry import Paper

# The law of the present step, were the sequences under another condition; a row that holds NaN is under none.
Model = Callable[[Float[Tensor, "N C"] | None], Transition]


@dataclass(frozen=True, eq=False)
class GuideContext:
    """What a guide may use: the model under another condition, decoding, and the objectives.

    letters: the written form of each data token, by id. known: utilities from before the run, None where a
    run has none. memory: the guide's own, by sequence and slot.
    """

    model: Model
    decode: Callable[[SequenceBatch], Sequence[Any]]
    noise: Noise
    scoreboard: Scoreboard
    letters: Sequence[str] = ()
    known: Known | None = None
    memory: Memory = field(default_factory=Memory)


class Guide(ABC):
    """Tilts a transition towards what is asked for.

    A guide only multiplies the one-step kernel, so fixed tokens and constraints stay as they are.
    Its result for a sequence does not depend on the rest of the batch: what it draws comes from the noise
    of that row, and what it keeps from step to step goes to `context.memory`, never to itself. `strength` 0
    is the unguided law, reached continuously and without an early return. `supports` names the
    transition kinds it can tilt; the sampler refuses others before it draws.

    A `conditional` guide needs sequences that have a condition, a `scoring` one a run that has objectives.
    pilot: how many unguided sequences a run scores first, from which it makes `context.known`; 0 where the
    guide does without. broken_laws: the laws that a member breaks by definition, `strength` (0 is the unguided
    law) or `batch` (rows stand alone); the suite asserts that it does.
    """

    paper: ClassVar[Paper]
    supports: ClassVar[frozenset[type[Transition]]]
    conditional: ClassVar[bool] = False
    scoring: ClassVar[bool] = False
    broken_laws: ClassVar[frozenset[str]] = frozenset()
    pilot: int = 0

    def __init__(self, strength: float = 1.0) -> None:
        self.strength = strength

    def suits(self, targets: Sequence[Target]) -> None:
        """`UserError` where these objectives cannot guide."""
        if self.scoring and not targets:
            raise UserError(f"{type(self).__name__} needs objectives to guide by: add objectives=, as in [gravy:max]")

    @abstractmethod
    def reweight(
        self, transition: Transition, batch: SequenceBatch, t: float, s: float, context: GuideContext
    ) -> Transition:
        """The tilted transition."""

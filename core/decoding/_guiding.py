"""How samplers apply their guides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.errors import UserError
from core.guidance.guides._memory import Memory
from core.guidance.guides.base import Guide, GuideContext, Model
from core.processes.transitions.base import Transition

# What a run's guides may use, from the model at a step and the noise of that step.
Context = Callable[[Model, Noise], GuideContext]


class Guiding:
    """The guides of a sampler, one after the other at each step, and what each remembers of the sequences."""

    def __init__(self, guides: Sequence[Guide], context: Context | None) -> None:
        if guides and context is None:
            raise ValueError("guides need a context")
        self.guides, self.context = tuple(guides), context
        self.memories = tuple(Memory() for _ in guides)

    def asked(self, model: Model, noise: Noise) -> GuideContext:
        """What a run is steered by; ValueError where it has no objectives."""
        context = None if self.context is None else self.context(model, noise)
        if context is None or not context.scoreboard.targets:
            raise ValueError("steering needs a context with objectives")
        return context

    def tilted(
        self, transition: Transition, batch: SequenceBatch, t: float, s: float, noise: Noise, model: Model
    ) -> Transition:
        """The transition from t to s of `batch` as the guides tilt it; UserError for a kind that one cannot."""
        for guide, memory in zip(self.guides, self.memories, strict=True):
            if type(transition) not in guide.supports:
                raise UserError(f"{type(guide).__name__} cannot tilt a {type(transition).__name__}")
            assert self.context is not None
            context = replace(self.context(model, noise), memory=memory)
            guide.suits(context.scoreboard.targets)
            memory.begin(noise)
            transition = guide.reweight(transition, batch, t, s, context)
        return transition

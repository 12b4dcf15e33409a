"""What guides share that weigh the tokens of single sites."""

from __future__ import annotations

import math
from abc import abstractmethod

from jaxtyping import Float
from torch import Tensor

from core.data.sequence_batch import SequenceBatch
from core.guidance.guides._sites import Sites
from core.guidance.guides.base import Guide, GuideContext
from core.processes.transitions.base import Transition
from core.processes.transitions.substitute import Substitute


class SiteGuide(Guide):
    """Weighs what single sites of a substitution may become, by what objectives say of whole sequences.

    Sites that move together are weighed one by one, each beside the others as they stand. Where a site
    shows no data token, as under a mask, the sequence is first completed by `draws` draws from its posterior,
    whatever the constraints; where all show one, as under a uniform source, it is taken as it stands.
    sites: at most so many of a row in each step, None for all. No weight goes beyond 80 nats.
    """

    supports = frozenset({Substitute})
    scoring = True

    def __init__(self, strength: float, sites: int | None, draws: int) -> None:
        if not math.isfinite(strength):
            raise ValueError(f"strength {strength}: a finite number is needed")
        for name, value in (("sites", sites), ("draws", draws)):
            if value is not None and value < 1:
                raise ValueError(f"{name} {value}: at least 1")
        super().__init__(strength)
        self.sites, self.draws = sites, draws

    def reweight(
        self, transition: Transition, batch: SequenceBatch, t: float, s: float, context: GuideContext
    ) -> Transition:
        assert isinstance(transition, Substitute)
        found = Sites.of(transition, batch, context.noise, self.sites, self.draws)
        return transition if found is None else found.tilted(self.log_weights(found, t, s, context))

    @abstractmethod
    def log_weights(self, sites: Sites, t: float, s: float, context: GuideContext) -> Float[Tensor, "R P V"]:
        """Of every token at every site, finite, 0 everywhere at strength 0."""

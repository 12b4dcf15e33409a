"""Laws of every guide, shown on a toy guide until the first member comes."""

import torch

from core.guidance.guides.base import Guide, GuideContext
from core.processes.mixture_flow import MixtureFlow
from core.processes.transitions.base import Transition
from core.processes.transitions.substitute import Substitute
from core.registry import Paper
from tests.laws.toys import ToyLaw, batch_of


class Favour(Guide):
    """Multiplies the weight of token 0 by e^strength."""

    paper = Paper("ours", "toy")
    supports = frozenset({Substitute})

    def reweight(self, transition: Transition, batch, t: float, s: float, context: GuideContext | None) -> Transition:
        weights = torch.zeros(*batch.tokens.shape, 3, dtype=torch.float64)
        weights[..., 0] = self.strength
        return transition.tilted(weights)


def share_of_zero(strength: float) -> float:
    law = ToyLaw()
    process = MixtureFlow(law.vocabulary).double()
    batch = batch_of(torch.full((1, 2), law.vocabulary.mask))
    plain = process.transition(law.network("mask"), batch, 0.0, 1.0)
    tilted = Favour(strength).reweight(plain, batch, 0.0, 1.0, None)
    assert isinstance(tilted, Substitute)
    return float(tilted.law(batch, torch.tensor([0]))[1][0, 0, 0].exp())


def test_guided_share_is_the_predicted_one_and_strength_zero_is_neutral() -> None:
    law = ToyLaw()
    base = float(law.q[law.sequences[:, 0] == 0].sum())
    assert abs(share_of_zero(0.0) - base) < 1e-12
    for strength in (1e-6, 0.5, 2.0):
        odds = base / (1 - base) * torch.tensor(strength, dtype=torch.float64).exp()
        assert abs(share_of_zero(strength) - float(odds / (1 + odds))) < 1e-12

"""Laws of the transitions."""

import torch

from core.processes.mixture_flow import MixtureFlow
from tests.laws.toys import ToyLaw, batch_of


def test_tilt_multiplies_the_kernel() -> None:
    law = ToyLaw(seed=4)
    process = MixtureFlow(law.vocabulary, source="uniform").double()
    states = law.states("uniform")
    batch = batch_of(states)
    plain = process.transition(law.network("uniform"), batch, 0.4, 0.6)
    weights = torch.randn(len(states), 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = torch.arange(len(states))
    jump, log_posterior = plain.law(batch, rows)
    base = jump[..., None] * log_posterior.exp()
    base = base.scatter_add(-1, states[..., None], (1 - jump)[..., None])
    wanted = base * weights.exp()
    wanted = wanted / wanted.sum(-1, keepdim=True)
    jump, log_posterior = plain.tilted(weights).law(batch, rows)
    found = jump[..., None] * log_posterior.exp()
    found = found.scatter_add(-1, states[..., None], (1 - jump)[..., None])
    assert torch.allclose(found, wanted, atol=1e-12)
    jump, log_posterior = plain.tilted(torch.zeros_like(weights)).law(batch, rows)
    neutral = (jump[..., None] * log_posterior.exp()).scatter_add(-1, states[..., None], (1 - jump)[..., None])
    assert torch.allclose(neutral, base, atol=1e-12)

"""How long sequences are: learnt from data, restricted when asked."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.data.noise import Noise, Purpose, draw
from core.errors import UserError


class LengthPrior(nn.Module):
    """A smoothed histogram of lengths.

    Counts are spread by a triangular kernel of half-width 2 and mixed with 1 % of a uniform
    law on 1..limit, so every length up to the limit keeps a finite log-probability.
    """

    log_probability: Tensor

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        uniform = torch.full((limit + 1,), 1.0 / limit, dtype=torch.float64)
        uniform[0] = 0
        self.register_buffer("log_probability", uniform.log())

    def fit(self, lengths: Int[Tensor, " N"]) -> None:
        """Learn from training lengths, none of them above the limit."""
        counts = torch.bincount(lengths, minlength=self.limit + 1).double()
        kernel = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0], dtype=torch.float64)
        smooth = torch.nn.functional.conv1d(counts[None, None], kernel[None, None] / 9, padding=2)[0, 0]
        smooth[0] = 0
        uniform = torch.full_like(smooth, 1.0 / self.limit)
        uniform[0] = 0
        self.log_probability.copy_((0.99 * smooth / smooth.sum() + 0.01 * uniform).log())

    def nll(self, lengths: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
        """-log p(length), nats; infinite above the limit."""
        inside = lengths <= self.limit
        value = -self.log_probability[torch.where(inside, lengths, 0)]
        return torch.where(inside, value, torch.inf)

    def draw(self, noise: Noise, allowed: tuple[int, ...]) -> Int[Tensor, " N"]:
        """Lengths restricted to `allowed`."""
        law = torch.full_like(self.log_probability, -torch.inf)
        index = torch.tensor([n for n in allowed if 0 < n <= self.limit], device=law.device, dtype=torch.long)
        if not len(index):
            raise UserError(f"no allowed length lies within the model's 1..{self.limit}")
        law[index] = self.log_probability[index]
        uniform = noise.uniform(1, Purpose.LENGTH)[:, 0]
        return draw(law.expand(len(uniform), -1), uniform)

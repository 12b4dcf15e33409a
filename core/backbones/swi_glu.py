"""The gated channel mixer."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu


class SwiGLU(nn.Module):
    """out(silu(gate(x)) * value(x)) (Shazeer 2020, arXiv 2002.05202); hidden is about 8/3 of the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # Multiples of 8 fill the matrix units.
        self.hidden = -(-8 * width // 24) * 8
        self.gate = nn.Linear(width, self.hidden, bias=False)
        self.value = nn.Linear(width, self.hidden, bias=False)
        self.out = nn.Linear(self.hidden, width, bias=False)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        return self.out(silu(self.gate(x)) * self.value(x))

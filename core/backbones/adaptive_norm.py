"""The norm through which time and condition enter."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from core.data.layout import Layout


class AdaptiveNorm(nn.Module):
    """RMSNorm, then shift, scale and a gate for the branch behind it (AdaLN-zero, arXiv 2212.09748).

    Without conditioning it is the plain norm and the gate is None. At initialisation shift,
    scale and gate are 0, so that a conditioned block starts as the identity.
    """

    def __init__(self, width: int, conditioned: bool) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.modulation = nn.Linear(width, 3 * width) if conditioned else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(
        self, h: Float[Tensor, "B L D"], layout: Layout, condition: Tensor | None
    ) -> tuple[Float[Tensor, "B L D"], Tensor | None]:
        """`condition`: `[B, L, D]`, anything that broadcasts to it, or `[N, 1, D]` one a sequence."""
        normed = self.norm(h)
        if self.modulation is None or condition is None:
            return normed, None
        shift, scale, gate = spread(self.modulation(condition), layout).chunk(3, -1)
        return normed * (1 + scale) + shift, gate


def spread(values: Float[Tensor, "A T C"], layout: Layout) -> Float[Tensor, "B L C"]:
    """One row a sequence, brought to the tokens of a packed layout; other shapes broadcast already."""
    if not layout.is_packed or values.shape[1] != 1 or values.shape[0] != layout.count:
        return values
    if not layout.count:
        return values.new_zeros(*layout.shape, values.shape[-1])
    return values[layout.owners.clamp_min(0), 0]


def together(
    one: Float[Tensor, "A T C"] | None, other: Float[Tensor, "E S C"] | None, layout: Layout
) -> Float[Tensor, "G U C"] | None:
    """The sum of two conditions, one row a sequence for as long as both are."""
    if one is None or other is None:
        return other if one is None else one
    if one.shape[:2] != other.shape[:2]:
        one, other = spread(one, layout), spread(other, layout)
    return one + other

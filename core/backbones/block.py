"""One layer of a backbone."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from core.backbones.adaptive_norm import AdaptiveNorm
from core.backbones.mixers.base import Keep, SequenceMixer
from core.backbones.state import State
from core.backbones.swi_glu import SwiGLU
from core.data.layout import Layout


class Block(nn.Module):
    """Norm, sequence mixer, residual; norm, channel mixer, residual."""

    def __init__(self, mixer: SequenceMixer, conditioned: bool, dropout: float) -> None:
        super().__init__()
        self.mixer_norm = AdaptiveNorm(mixer.width, conditioned)
        self.mixer = mixer
        self.channel_norm = AdaptiveNorm(mixer.width, conditioned)
        self.channel = SwiGLU(mixer.width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        h: Float[Tensor, "B L D"],
        layout: Layout,
        condition: Tensor | None = None,
        state: State | None = None,
        keep: Keep = "none",
    ) -> tuple[Float[Tensor, "B L D"], State | None]:
        """`condition` as `AdaptiveNorm` takes it."""
        normed, gate = self.mixer_norm(h, layout, condition)
        mixed, state = self.mixer(normed, layout, state, keep)
        h = h + self._gated(mixed, gate)
        normed, gate = self.channel_norm(h, layout, condition)
        return h + self._gated(self.channel(normed), gate), state

    def _gated(self, branch: Float[Tensor, "B L D"], gate: Tensor | None) -> Float[Tensor, "B L D"]:
        branch = self.dropout(branch)
        return branch if gate is None else gate * branch

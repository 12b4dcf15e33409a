"""One layer of a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from jaxtyping import Float
from torch import Tensor, nn

from core.backbones.adaptive_norm import AdaptiveNorm
from core.backbones.memories.base import Fusion
from core.backbones.mixers.base import Keep, SequenceMixer
from core.backbones.positions import positions_of
from core.backbones.source import Source
from core.backbones.state import Stack, State
from core.backbones.swi_glu import SwiGLU
from core.data.layout import Layout
from core.data.sequence_batch import Memory


class Block(nn.Module):
    """Norm, sequence mixer, residual; norm, channel mixer, residual.

    With a fusion of memories, norm, fusion and residual stand between them, and the state is a
    `Stack` of the mixer's and of what the fusion reads.
    """

    def __init__(self, mixer: SequenceMixer, conditioned: bool, dropout: float, fusion: Fusion | None = None) -> None:
        super().__init__()
        self.mixer_norm = AdaptiveNorm(mixer.width, conditioned)
        self.mixer = mixer
        self.fusion_norm = None if fusion is None else AdaptiveNorm(mixer.width, conditioned)
        self.fusion = fusion
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
        memories: Mapping[str, Memory] | None = None,
    ) -> tuple[Float[Tensor, "B L D"], State | None]:
        """`condition` as `AdaptiveNorm` takes it; `memories` are encoded, and read where no state holds them."""
        past, sources = self._parted(state, memories or {}, layout.count)
        normed, gate = self.mixer_norm(h, layout, condition)
        mixed, after = self.mixer(normed, layout, past, keep)
        h = h + self._gated(mixed, gate)
        if self.fusion is not None and self.fusion_norm is not None:
            normed, gate = self.fusion_norm(h, layout, condition)
            h = h + self._gated(self.fusion(normed, layout, positions_of(layout, past), sources), gate)
            after = None if after is None else _beside(after, sources)
        normed, gate = self.channel_norm(h, layout, condition)
        return h + self._gated(self.channel(normed), gate), after

    def init_state(self, n: int, memories: Mapping[str, Memory]) -> State:
        """Nothing read yet by n sequences, beside the memories that they may read."""
        state = self.mixer.init_state(n)
        return state if self.fusion is None else _beside(state, self.fusion.project(memories, n))

    def _parted(
        self, state: State | None, memories: Mapping[str, Memory], n: int
    ) -> tuple[State | None, tuple[Source, ...]]:
        """The mixer's state, and what the fusion reads."""
        if self.fusion is None:
            return state, ()
        if state is None:
            return None, self.fusion.project(memories, n)
        assert isinstance(state, Stack)
        return state.layers[0], cast(tuple[Source, ...], state.layers[1:])

    def _gated(self, branch: Float[Tensor, "B L D"], gate: Tensor | None) -> Float[Tensor, "B L D"]:
        branch = self.dropout(branch)
        return branch if gate is None else gate * branch


def _beside(state: State, sources: tuple[Source, ...]) -> Stack:
    return Stack(state.position, (state, *(replace(source, position=state.position) for source in sources)))

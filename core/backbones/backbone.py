"""The network that every process trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from core.backbones.adaptive_norm import AdaptiveNorm, together
from core.backbones.block import Block
from core.backbones.mixers._build import build_mixer
from core.backbones.mixers.base import Keep
from core.backbones.state import Stack
from core.backbones.time_embedding import TimeEmbedding
from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.errors import UserError


class Backbone(nn.Module):
    """Embedding, blocks, norm, head.

    vocabulary: rows of the embedding. outputs: logits a token. pattern: mixers as
    `{"name": key, **options}`, repeated in turn to `depth` layers; a `window` in an entry
    narrows the mask of its layers. time: whether a time in [0, 1] conditions the blocks.
    condition: channels of the condition vector, 0 for none.

    Residual branches start closed: at AdaLN's gate where the blocks are conditioned, else at
    the branches' last linear map.
    """

    def __init__(
        self,
        vocabulary: int,
        outputs: int,
        width: int,
        pattern: Sequence[Mapping[str, Any]],
        depth: int,
        mask: MaskSpec,
        dropout: float = 0.0,
        time: bool = False,
        condition: int = 0,
    ) -> None:
        super().__init__()
        if not (isinstance(pattern, Sequence) and pattern and all(isinstance(entry, Mapping) for entry in pattern)):
            raise UserError("pattern names no mixer: give at least one, such as [{name: attention}]")
        if width < 1 or depth < 0:
            raise UserError(f"width {width} and depth {depth}: they must be at least 1 and 0")
        conditioned = time or condition > 0
        self.mask = mask
        self.embedding = nn.Embedding(vocabulary, width)
        self.time = TimeEmbedding(width) if time else None
        self.condition = nn.Linear(condition, width) if condition else None
        # What the model reads where a sequence has no condition.
        self.unconditional = nn.Parameter(torch.zeros(width)) if condition else None
        self.blocks = nn.ModuleList(
            Block(build_mixer(pattern[layer % len(pattern)], width, mask), conditioned, dropout)
            for layer in range(depth)
        )
        self.norm = AdaptiveNorm(width, conditioned)
        self.head = nn.Linear(width, outputs, bias=False)
        nn.init.normal_(self.embedding.weight, std=0.02)
        nn.init.normal_(self.head.weight, std=0.02)
        self._close_branches(0.02 / math.sqrt(2 * max(depth, 1)) if conditioned else 0.0)

    def _close_branches(self, std: float) -> None:
        # Closed twice, by the gate and by a zero map, a branch would have no gradient at all.
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.Linear) and name.rpartition(".")[2] == "out":
                nn.init.normal_(module.weight, std=std)

    def forward(
        self,
        tokens: Int[Tensor, "B L"],
        layout: Layout,
        time: Float[Tensor, "A T"] | None = None,
        condition: Float[Tensor, "N C"] | None = None,
        state: Stack | None = None,
        keep: Keep = "none",
    ) -> tuple[Float[Tensor, "B L V"], Stack | None]:
        """Logits of every token, and the state that `keep` asks for.

        time: `[B, L]`, `[B, 1]`, or one a sequence `[N, 1]`. condition: one a sequence; None and
        rows that hold a NaN are unconditional. Places of padding hold any finite logits.
        """
        modulation = self._modulation(layout, time, condition)
        h = self.embedding(tokens.masked_fill(~layout.valid, 0))
        layers = []
        for index, block in enumerate(self.blocks):
            h, after = block(h, layout, modulation, None if state is None else state.layers[index], keep)
            layers.append(after)
        logits = self.head(self.norm(h, layout, modulation)[0])
        if keep == "none":
            return logits, None
        start = torch.zeros_like(layout.lengths) if state is None else state.position
        return logits, Stack(start + layout.lengths, tuple(layers))

    def step(
        self, tokens: Int[Tensor, " N"], state: Stack, condition: Float[Tensor, "N C"] | None = None
    ) -> tuple[Float[Tensor, "N V"], Stack]:
        """Read one more token of each sequence."""
        layout = Layout.padded(state.position.new_ones(len(tokens)), 1, self.mask)
        logits, after = self(tokens[:, None], layout, None, condition, state, "last")
        assert after is not None
        return logits[:, 0], after

    def init_state(self, n: int) -> Stack:
        """The state of n sequences of which nothing has been read."""
        position = torch.zeros(n, dtype=torch.long, device=self.head.weight.device)
        return Stack(position, tuple(cast(Block, block).mixer.init_state(n) for block in self.blocks))

    def _modulation(
        self, layout: Layout, time: Float[Tensor, "A T"] | None, condition: Float[Tensor, "N C"] | None
    ) -> Tensor | None:
        """What the norms read, with one row for each distinct time and condition where shapes allow."""
        if (time is None) != (self.time is None):
            raise ValueError("a time-conditioned backbone needs time, and only such a one takes it")
        if condition is not None and self.condition is None:
            raise ValueError("this backbone was built without a condition")
        moment = None if self.time is None else self.time(time)
        given = None
        if self.condition is not None and self.unconditional is not None:
            dtype = self.condition.weight.dtype
            if condition is None:
                given = self.unconditional.expand(layout.count, 1, -1)
            else:
                absent = condition.isnan().any(-1, keepdim=True)
                known = self.condition(condition.to(dtype).masked_fill(absent, 0))
                given = torch.where(absent, self.unconditional, known)[:, None]
        modulation = together(moment, given, layout)
        return None if modulation is None else silu(modulation)

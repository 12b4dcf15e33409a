"""The network that every process trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.functional import silu

from core.backbones.adaptive_norm import AdaptiveNorm, together
from core.backbones.block import Block
from core.backbones.memories._build import build_fusions
from core.backbones.mixers._build import build_mixer
from core.backbones.mixers.base import Keep
from core.backbones.pointer_head import PointerHead
from core.backbones.source import Source
from core.backbones.state import Stack, State
from core.backbones.time_embedding import TimeEmbedding
from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.data.sequence_batch import Memory
from core.errors import UserError


class Backbone(nn.Module):
    """Embedding, blocks, norm, head.

    vocabulary: rows of the embedding; 0 for tokens of numbers, which a linear map reads, as many as `outputs`.
    outputs: logits a token, 0 for a network that only encodes. pattern: mixers as
    `{"name": key, **options}`, repeated in turn to `depth` layers; a `window` in an entry
    narrows the mask of its layers. time: whether a time in [0, 1] conditions the blocks.
    condition: channels of the condition vector, 0 for none. fusion: how layers read encoded
    memories, `{"name": key, "sources": channels of each memory by name, **options}`; with
    `pointer`, the name of a memory, ids from `vocabulary` on point into its slots. recalls: whether
    the embedding also takes in an estimate of each token.

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
        fusion: Mapping[str, Any] | None = None,
        recalls: bool = False,
    ) -> None:
        super().__init__()
        if not (isinstance(pattern, Sequence) and pattern and all(isinstance(entry, Mapping) for entry in pattern)):
            raise UserError("pattern names no mixer: give at least one, such as [{name: attention}]")
        if width < 1 or depth < 0:
            raise UserError(f"width {width} and depth {depth}: they must be at least 1 and 0")
        conditioned = time or condition > 0
        self.width, self.mask = width, mask
        self.embedding = nn.Embedding(vocabulary, width) if vocabulary else nn.Linear(outputs, width)
        self.recall = nn.Linear(outputs, width, bias=False) if recalls else None
        self.time = TimeEmbedding(width) if time else None
        self.condition = nn.Linear(condition, width) if condition else None
        # What the model reads where a sequence has no condition.
        self.unconditional = nn.Parameter(torch.zeros(width)) if condition else None
        reading = dict(fusion or {})
        sources, pointer = dict(reading.pop("sources", None) or {}), reading.pop("pointer", None)
        fusions = build_fusions(reading, width, sources, depth) if fusion else [None] * depth
        self.blocks = nn.ModuleList(
            Block(build_mixer(pattern[layer % len(pattern)], width, mask), conditioned, dropout, fusions[layer])
            for layer in range(depth)
        )
        self.norm = AdaptiveNorm(width, conditioned)
        self.head = nn.Linear(width, outputs, bias=False) if outputs else None
        if vocabulary:
            nn.init.normal_(self.embedding.weight, std=0.02)
        if self.head is not None:
            nn.init.normal_(self.head.weight, std=0.02)
        self.pointer = None if pointer is None else PointerHead(width, vocabulary, pointer)
        if pointer is not None and sources.get(pointer) != width:
            raise UserError(f"model.fusion.pointer={pointer}: name an encoder of the model's width {width}")
        if self.recall is not None:
            nn.init.zeros_(self.recall.weight)
        self._close_branches(0.02 / math.sqrt(2 * max(depth, 1)) if conditioned else 0.0)

    def _close_branches(self, std: float) -> None:
        # Closed twice, by the gate and by a zero map, a branch would have no gradient at all.
        for name, module in self.blocks.named_modules():
            if isinstance(module, nn.Linear) and name.rpartition(".")[2] == "out":
                nn.init.normal_(module.weight, std=std)

    def forward(
        self,
        tokens: Shaped[Tensor, "B L *C"],
        layout: Layout,
        time: Float[Tensor, "A T"] | None = None,
        condition: Float[Tensor, "N C"] | None = None,
        state: Stack | None = None,
        keep: Keep = "none",
        memories: Mapping[str, Memory] | None = None,
        estimate: Float[Tensor, "B L V"] | None = None,
    ) -> tuple[Float[Tensor, "B L V"], Stack | None]:
        """Logits of every token, and the state that `keep` asks for.

        time: `[B, L]`, `[B, 1]`, or one a sequence `[N, 1]`. condition: one a sequence; None and
        rows that hold a NaN are unconditional. memories: encoded ones; a state holds its own. With a
        pointer head the logits are log-probabilities, also of every slot of its memory. estimate: zeros
        say nothing, like None. Places of padding hold any finite logits.
        """
        if self.head is None:
            raise ValueError("a backbone without outputs only encodes")
        modulation, pointed = self._modulation(layout, time, condition), None
        if self.pointer is not None:
            found = self.pointer.project(memories or {}, layout.count) if state is None else state.layers[-1]
            pointed = cast(Source, found)
        if estimate is not None and self.recall is None:
            raise ValueError("this backbone was built without recalls")
        h, layers = self._read(tokens, layout, modulation, pointed, state, keep, memories, estimate)
        logits = self.head(h)
        if self.pointer is not None and pointed is not None:
            logits = self.pointer(h, logits, layout, pointed)
        if keep == "none":
            return logits, None
        position = layout.lengths if state is None else state.position + layout.lengths
        held = () if pointed is None else (replace(pointed, position=position),)
        return logits, Stack(position, (*layers, *held), condition)

    def encode(self, tokens: Shaped[Tensor, "B L *C"], layout: Layout) -> Float[Tensor, "B L D"]:
        """Each token's activations behind the last norm, without time or condition."""
        return self._read(tokens, layout, self._modulation(layout, None, None))[0]

    def _read(
        self,
        tokens: Shaped[Tensor, "B L *C"],
        layout: Layout,
        modulation: Tensor | None,
        pointed: Source | None = None,
        state: Stack | None = None,
        keep: Keep = "none",
        memories: Mapping[str, Memory] | None = None,
        estimate: Float[Tensor, "B L V"] | None = None,
    ) -> tuple[Float[Tensor, "B L D"], list[State]]:
        """What the head reads, and the states behind the layers where `keep` asks for them."""
        if tokens.is_floating_point():
            h = self.embedding(tokens.to(self.embedding.weight.dtype).masked_fill(~layout.valid[..., None], 0))
        else:
            row = layout.valid if self.pointer is None else layout.valid & (tokens < len(self.embedding.weight))
            h = self.embedding(tokens.masked_fill(~row, 0))
        if self.pointer is not None and pointed is not None:
            h = self.pointer.embed(tokens, h, layout, pointed)
        if estimate is not None and self.recall is not None:
            h = h + self.recall(estimate.to(h.dtype).masked_fill(~layout.valid[..., None], 0))
        layers = []
        for index, block in enumerate(self.blocks):
            past = None if state is None else state.layers[index]
            h, after = block(h, layout, modulation, past, keep, memories)
            layers += [] if after is None else [after]
        return self.norm(h, layout, modulation)[0], layers

    def step(self, tokens: Int[Tensor, " N"], state: Stack) -> tuple[Float[Tensor, "N V"], Stack]:
        """Read one more token of each sequence, under the condition that the state was read with."""
        layout = Layout.padded(state.position.new_ones(len(tokens)), 1, self.mask)
        logits, after = self(tokens[:, None], layout, None, state.condition, state, "last")
        assert after is not None
        return logits[:, 0], after

    def init_state(self, n: int, memories: Mapping[str, Memory] | None = None) -> Stack:
        """The state of n sequences of which nothing has been read, beside the encoded memories that they read."""
        position = torch.zeros(n, dtype=torch.long, device=self.embedding.weight.device)
        layers = [cast(Block, block).init_state(n, memories or {}) for block in self.blocks]
        held = [] if self.pointer is None else [self.pointer.project(memories or {}, n)]
        return Stack(position, (*layers, *held))

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

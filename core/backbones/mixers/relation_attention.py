"""Softmax attention along typed edges."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor, nn

from core.backbones.engines.attend import attend
from core.backbones.engines.relate import relate
from core.backbones.engines.rows import as_packed, as_rows
from core.backbones.mixers.base import Capabilities, Keep, SequenceMixer
from core.backbones.positions import rotate
from core.backbones.state import State
from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.registry import Paper


class RelationAttention(SequenceMixer):
    """Multi-head attention that reads `Layout.relations`; without edges it is plain attention.

    types: kinds of edges, each with a learnt vector for keys and one for values, shared by the
    heads. It cannot decode: edges may lead to tokens that are yet to come.
    """

    paper = Paper(
        "ours",
        "Self-Attention with Relative Position Representations",
        "1803.02155",
        "any typed edges, as in RAT-SQL (1911.04942); a sparse list, several edges between two tokens add up",
    )
    capabilities = Capabilities(
        masks=frozenset({"causal", "full", "prefix", "window", "sinks", "block"}), state="none", cost=2.0
    )

    def __init__(self, width: int, mask: MaskSpec, types: int = 16, heads: int = 4, rotary: bool = True) -> None:
        super().__init__(width, mask)
        if types < 1 or heads < 1:
            raise ValueError(f"{types} types of edges and {heads} heads: at least one of each is needed")
        if width % heads or (rotary and width // heads % 2):
            raise ValueError(f"width {width} does not split into {heads} heads" + " of pairs" * rotary)
        self.heads, self.rotary = heads, rotary
        self.query, self.key, self.value, self.out = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.key_edges, self.value_edges = (nn.Embedding(types, width // heads) for _ in range(2))
        for table in (self.key_edges, self.value_edges):
            nn.init.normal_(table.weight, std=0.02)

    def forward(
        self, h: Float[Tensor, "B L D"], layout: Layout, state: State | None = None, keep: Keep = "none"
    ) -> tuple[Float[Tensor, "B L D"], State | None]:
        if state is not None or keep != "none":
            self.init_state(layout.count)
        h = h.masked_fill(~layout.valid[..., None], 0)
        if not layout.is_packed:
            return self._rows(h, layout), None
        rows = replace(
            Layout.padded(layout.lengths, layout.longest),
            positions=as_rows(layout.positions, layout),
            prefix=layout.prefix,
            relations=layout.relations,
        )
        y = as_packed(self._rows(as_rows(h, layout), rows), layout)
        return y.masked_fill(~layout.valid[..., None], 0), None

    def _rows(self, h: Float[Tensor, "N L D"], layout: Layout) -> Float[Tensor, "N L D"]:
        query, key, value = (
            project(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project in (self.query, self.key, self.value)
        )
        if self.rotary:
            query, key = rotate(query, layout.positions), rotate(key, layout.positions)
        if layout.relations is None:
            mixed, _ = attend(query, key, value, self.mask, layout)
        else:
            tables = self.key_edges.weight, self.value_edges.weight
            mixed = relate(query, key, value, self.mask.dense(layout), layout.relations, tables)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def init_state(self, n: int) -> State:
        raise ValueError("relation attention has no decoding state: edges may lead to tokens that are yet to come")

"""Both directions of a causal mixer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.backbones.mixers._build import build_mixer
from core.backbones.mixers.base import Capabilities, Keep, SequenceMixer
from core.backbones.state import State
from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.registry import Paper


class Bidirectional(SequenceMixer):
    """Two copies of a causal mixer, one of which reads each sequence from its end.

    mixer: the causal mixer as a pattern entry. join: `sum`, or `concat` with a linear map back
    to the width. It cannot decode: a later token changes earlier outputs.
    """

    paper = Paper(
        "ours",
        "Bidirectional Recurrent Neural Networks (Schuster and Paliwal 1997)",
        deviations="any causal mixer; sequences are turned around in place, under packing too",
    )
    capabilities = Capabilities(masks=frozenset({"full"}), state="none", cost=1.0)

    def __init__(self, width: int, mask: MaskSpec, mixer: Mapping[str, Any], join: str = "sum") -> None:
        super().__init__(width, mask)
        if join not in ("sum", "concat"):
            raise ValueError(f"join is sum or concat, got {join!r}")
        self.onward = build_mixer(mixer, width, MaskSpec("causal"))
        self.backward = build_mixer(mixer, width, MaskSpec("causal"))
        self.out = nn.Linear(2 * width, width, bias=False) if join == "concat" else None

    def forward(
        self, h: Float[Tensor, "B L D"], layout: Layout, state: State | None = None, keep: Keep = "none"
    ) -> tuple[Float[Tensor, "B L D"], State | None]:
        if state is not None or keep != "none":
            self.init_state(layout.count)
        turn = reversal(layout)
        turned = replace(layout, positions=_taken(layout.positions, turn))
        onward, _ = self.onward(h, layout)
        backward, _ = self.backward(_taken(h, turn), turned)
        backward = _taken(backward, turn)
        if self.out is None:
            return onward + backward, None
        return self.out(torch.cat([onward, backward], -1)), None

    def init_state(self, n: int) -> State:
        raise ValueError("a bidirectional mixer has no decoding state: later tokens change earlier outputs")


def reversal(layout: Layout) -> Int[Tensor, "B L"]:
    """The column that each place trades with when every sequence is turned around; its own inverse."""
    column = torch.arange(layout.shape[1], device=layout.owners.device).expand(layout.shape)
    if not layout.count:
        return column
    last = layout.lengths[layout.owners.clamp_min(0)] - 1
    return torch.where(layout.valid, column + last - 2 * layout.offsets, column)


def _taken(values: Tensor, columns: Int[Tensor, "B L"]) -> Tensor:
    return values.gather(1, columns[..., None].expand_as(values))

"""What a process sees of a backbone."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.backbones.backbone import Backbone
from core.backbones.state import Stack
from core.data.packing import pack, packed_layout, unpack
from core.data.sequence_batch import SequenceBatch


class BackboneNetwork(nn.Module):
    """Logits for the sites of a batch; `packed` drops the padding before the backbone reads it."""

    def __init__(self, backbone: Backbone, packed: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.packed = packed

    def forward(self, batch: SequenceBatch, time: Float[Tensor, "B S"] | None) -> Float[Tensor, "B S V"]:
        tokens, layout = batch.tokens, batch.layout.masked(self.backbone.mask)
        if time is not None:
            time = time.to(next(self.parameters()).dtype)
        if not self.packed or layout.is_packed:
            return self.backbone(tokens, layout, time, batch.condition)[0]
        dense = packed_layout(layout)
        packed_time = None if time is None else pack(time, layout)
        logits = self.backbone(pack(tokens, layout), dense, packed_time, batch.condition)[0]
        return unpack(logits, dense, tokens.shape[1])

    def init_state(self, n: int) -> Stack:
        """Nothing read yet, for n sequences."""
        return self.backbone.init_state(n)

    @torch.no_grad()
    def step(self, tokens: Int[Tensor, " N"], state: Stack) -> tuple[Float[Tensor, "N V"], Stack]:
        """Read one token of each sequence."""
        return self.backbone.step(tokens, state)

"""What a process sees of a backbone."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.backbones.backbone import Backbone
from core.backbones.state import Stack
from core.data.packing import pack, packed_layout, unpack
from core.data.sequence_batch import Memory, SequenceBatch


class BackboneNetwork(nn.Module):
    """Logits for the sites of a batch; `packed` drops the padding before the backbone reads it.

    encoders: a backbone for each memory that the layers read, by the memory's name. passed_over:
    memories that are for others than the layers, where these have no encoder for them.
    """

    def __init__(
        self,
        backbone: Backbone,
        packed: bool = False,
        encoders: Mapping[str, Backbone] | None = None,
        passed_over: Collection[str] = (),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.packed = packed
        self.passed_over = frozenset(passed_over)
        self.encoders = nn.ModuleDict(dict(encoders or {}))

    def encoded(self, batch: SequenceBatch) -> SequenceBatch:
        """The batch with its memories encoded; those that are stay as they are.

        Hand the result to a sampler that calls the network once a step, and each memory is encoded
        once. Raises ValueError for a memory that has no encoder.
        """
        unknown = set(batch.memories) - set(self.encoders) - self.passed_over
        if unknown:
            raise ValueError(f"no encoder for the memories {sorted(unknown)}: name it under model.encoders")
        memories = {name: self._encoded(name, memory) for name, memory in batch.memories.items()}
        return replace(batch, memories=memories)

    def _encoded(self, name: str, memory: Memory) -> Memory:
        if memory.encoded is not None or name not in self.encoders:
            return memory
        encoder = cast(Backbone, self.encoders[name])
        rows = memory.batch
        return replace(memory, encoded=encoder.encode(rows.tokens, rows.layout.masked(encoder.mask)))

    def forward(self, batch: SequenceBatch, time: Float[Tensor, "B S"] | None) -> Float[Tensor, "B S V"]:
        tokens, layout = batch.tokens, batch.layout.masked(self.backbone.mask)
        memories = self.encoded(batch).memories
        if time is not None:
            time = time.to(next(self.parameters()).dtype)
        if not self.packed or layout.is_packed:
            more = {"memories": memories, "estimate": batch.estimate}
            return self.backbone(tokens, layout, time, batch.condition, **more)[0]
        dense = packed_layout(layout)
        packed_time = None if time is None else pack(time, layout)
        more = {"memories": memories, "estimate": None if batch.estimate is None else pack(batch.estimate, layout)}
        logits = self.backbone(pack(tokens, layout), dense, packed_time, batch.condition, **more)[0]
        return unpack(logits, dense, tokens.shape[1])

    @torch.no_grad()
    def read(self, batch: SequenceBatch) -> tuple[Float[Tensor, "N V"], Stack]:
        """Read padded sequences of at least one token: the logits behind the last, and the State there."""
        layout = batch.layout.masked(self.backbone.mask)
        memories = self.encoded(batch).memories
        logits, state = self.backbone(batch.tokens, layout, None, batch.condition, None, "last", memories)
        return logits[layout.last()], state

    @torch.no_grad()
    def step(self, tokens: Int[Tensor, " N"], state: Stack) -> tuple[Float[Tensor, "N V"], Stack]:
        """Read one more token of each sequence."""
        return self.backbone.step(tokens, state)

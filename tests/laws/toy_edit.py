"""Every site kept, replaced or deleted, at a rate that grows with time."""

from __future__ import annotations

import torch
from torch import Tensor

from core.data.layout import Layout
from core.data.noise import Noise, Purpose
from core.data.sequence_batch import SequenceBatch
from core.processes.base import Network
from core.processes.transitions.edit import Edit
from core.registry import Paper
from tests.laws.toys import ToyProcess


class ToyEdit(ToyProcess):
    """From t to s each site is edited with probability (s - t) / (1 - t), to what the network says."""

    paper = Paper("ours", "toy")

    @property
    def outputs(self) -> int:
        return self.vocabulary.size + 1

    def prior(self, lengths: Tensor, noise: Noise) -> SequenceBatch:
        width = int(lengths.max()) if len(lengths) else 0
        tokens = (noise.uniform(width, Purpose.PRIOR) * self.vocabulary.size).long()
        layout = Layout.padded(lengths, width)
        return SequenceBatch(torch.where(layout.valid, tokens, self.vocabulary.pad), layout)

    def grid(self, steps: int) -> list[tuple[float, float]]:
        return [(i / steps, (i + 1) / steps) for i in range(steps)]

    def transition(self, network: Network, batch: SequenceBatch, t: float, s: float) -> Edit:
        chance = (s - t) / (1 - t)
        edits = chance * network(batch, None).softmax(-1)
        keep = torch.full(edits.shape[:2], 1 - chance, dtype=edits.dtype)
        return Edit.of(batch, keep, edits[..., :-1], edits[..., -1])

"""Rows that are finished leave the batch."""

from __future__ import annotations

from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch


def retire(
    batch: SequenceBatch,
    running: Any,
    noise: Noise,
    rows: Int[Tensor, " N"],
    done: Bool[Tensor, " N"],
    finished: dict[int, Tensor],
) -> tuple[SequenceBatch, Any, Noise, Int[Tensor, " K"]]:
    """Move the rows that are done into `finished`, keyed by their place at the start."""
    if not bool(done.any()):
        return batch, running, noise, rows
    ended = done.nonzero()[:, 0]
    for row, place, length in zip(
        ended.tolist(), rows[ended].tolist(), batch.layout.lengths[ended].tolist(), strict=True
    ):
        # A copy: a view would keep the whole batch of this step.
        finished[place] = batch.tokens[row, :length].clone()
    keep = (~done).nonzero()[:, 0]
    left = batch.select(keep)
    width = int(left.layout.lengths.max()) if len(keep) else 0
    if width < left.layout.shape[1]:
        left = left.narrowed(width)
    return left, None if running is None else running.select(keep), noise.select(keep), rows[keep]

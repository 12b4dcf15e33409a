"""Rows that are finished leave the batch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor

from core.data.layout import Layout
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
    for row in done.nonzero()[:, 0].tolist():
        finished[int(rows[row])] = batch.tokens[row, : int(batch.layout.lengths[row])]
    keep = (~done).nonzero()[:, 0]
    left = batch.select(keep)
    width = int(left.layout.lengths.max()) if len(keep) else 0
    if width < left.layout.shape[1]:
        layout = Layout.padded(left.layout.lengths, width, left.layout.mask)
        fixed = None if left.fixed is None else left.fixed[:, :width]
        closed = None if left.closed is None else left.closed[:, : width + 1]
        estimate = None if left.estimate is None else left.estimate[:, : width * left.fields]
        left = replace(
            left, tokens=left.tokens[:, :width], layout=layout, fixed=fixed, closed=closed, estimate=estimate
        )
    return left, None if running is None else running.select(keep), noise.select(keep), rows[keep]

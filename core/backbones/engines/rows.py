"""Packed tokens as one row a sequence, inside layers: no wait for the device."""

from __future__ import annotations

import torch
from jaxtyping import Shaped
from torch import Tensor

from core.data.layout import Layout


def as_rows(values: Shaped[Tensor, "1 T *rest"], layout: Layout) -> Shaped[Tensor, "N L *rest"]:
    """The tokens of each sequence of a packed layout from the left; what fills the rows is any token."""
    assert layout.cu_seqlens is not None
    place = torch.arange(layout.longest, device=values.device)
    source = layout.cu_seqlens[:-1].long()[:, None] + place
    source = torch.where(place < layout.lengths[:, None], source, 0)
    # The gradient of a selection is far cheaper than that of an index.
    return values[0].index_select(0, source.flatten()).unflatten(0, source.shape)


def as_packed(values: Shaped[Tensor, "N L *rest"], layout: Layout) -> Shaped[Tensor, "1 T *rest"]:
    """The inverse; slack holds any token."""
    if not layout.longest:
        return values.new_zeros(*layout.shape, *values.shape[2:])
    source = layout.owners.clamp_min(0) * layout.longest + layout.offsets
    return values.flatten(0, 1).index_select(0, source.flatten()).unflatten(0, source.shape)

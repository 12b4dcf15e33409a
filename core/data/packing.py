"""Padded <-> packed: the same sequences with and without padding between them."""

from __future__ import annotations

from dataclasses import replace

from jaxtyping import Shaped
from torch import Tensor

from core.data.layout import Layout


def pack(values: Shaped[Tensor, "N L *rest"], layout: Layout, width: int | None = None) -> Shaped[Tensor, "1 T *rest"]:
    """Drop the padding of `values`, one row a sequence.

    `width` leaves slack of zeros at the end; without it the result is exactly as long as the
    sequences together (one wait for the device, so call it at the model's border only).
    """
    kept = values[layout.valid]
    if width is None:
        return kept[None]
    packed = values.new_zeros(1, width, *values.shape[2:])
    packed[0, : len(kept)] = kept
    return packed


def packed_layout(layout: Layout, width: int | None = None) -> Layout:
    """The packed twin of a padded layout, with its mask, prefix and relations."""
    width = int(layout.lengths.sum()) if width is None else width
    packed = Layout.packed(layout.lengths, width, layout.mask)
    return replace(packed, prefix=layout.prefix, relations=layout.relations)


def unpack(
    values: Shaped[Tensor, "1 T *rest"], packed: Layout, width: int, fill: float = 0
) -> Shaped[Tensor, "N L *rest"]:
    """The inverse of `pack`; places without a token hold `fill`."""
    padded = values.new_full((packed.count, width, *values.shape[2:]), fill)
    inside = packed.valid[0]
    padded[packed.owners[0, inside], packed.offsets[0, inside]] = values[0, inside]
    return padded

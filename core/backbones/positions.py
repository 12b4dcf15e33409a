"""Rotary position encoding (Su et al. 2021, arXiv 2104.09864)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.backbones.state import State
from core.data.layout import Layout


def positions_of(layout: Layout, state: State | None) -> Int[Tensor, "B L P"]:
    """Where the tokens of `layout` stand; those that continue a state count on from it."""
    if state is None:
        return layout.positions
    if layout.positions.shape[-1] != 1:
        raise ValueError("continuing a state needs one position axis: a state counts tokens only")
    return layout.positions + state.position[:, None, None]


def rotate(
    x: Float[Tensor, "B H L E"], positions: Int[Tensor, "B L P"], base: float = 10000.0
) -> Float[Tensor, "B H L E"]:
    """Turn each pair (i, i + E/2) by position * base^(-2i/E).

    Several position axes share the pairs in turn. Angles are computed in at least fp32.
    """
    half = x.shape[-1] // 2
    wide = torch.promote_types(x.dtype, torch.float32)
    pair = torch.arange(half, device=x.device)
    frequency = base ** (-pair.to(wide) / half)
    angle = (positions[..., pair % positions.shape[-1]].to(wide) * frequency)[:, None]
    cosine, sine = angle.cos(), angle.sin()
    left, right = x[..., :half].to(wide), x[..., half:].to(wide)
    return torch.cat([left * cosine - right * sine, left * sine + right * cosine], -1).to(x.dtype)

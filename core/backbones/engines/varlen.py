"""Softmax attention by torch's kernel for sequences of unequal length: nothing is computed between two of them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.backbones.engines.dense import shared
from core.data.layout import Layout
from core.data.mask import MaskSpec


def honours(head_dim: int, mask: MaskSpec, with_lse: bool) -> bool:
    """Whether the kernel can do this, in half precision."""
    # Its log-sum-exp has no gradient.
    lost = with_lse and torch.is_grad_enabled()
    return mask.features <= {"causal", "full", "window"} and head_dim % 8 == 0 and head_dim <= 256 and not lost


def attend_varlen(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B G L E"],
    value: Float[Tensor, "B G L E"],
    mask: MaskSpec,
    layout: Layout,
    with_lse: bool,
) -> tuple[Float[Tensor, "B H L E"], Float[Tensor, "B H L"] | None]:
    """`attend` for causal and full masks with or without a window; the log-sum-exp is a constant to gradients."""
    # Its import takes seconds.
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    key, value = shared(key, query), shared(value, query)
    query, key, value = (part.transpose(1, 2).flatten(0, 1) for part in (query, key, value))
    cuts = layout.once("varlen", lambda: _cuts(layout))
    back = -1 if mask.window is None else mask.window - 1
    window = (back, 0 if mask.mode == "causal" else back)
    most, aux = layout.longest, AuxRequest(lse=True)
    out, lse = varlen_attn(query, key, value, cuts, cuts, most, most, window_size=window, return_aux=aux)
    out = out.unflatten(0, layout.shape).transpose(1, 2).masked_fill(~layout.valid[:, None, :, None], 0)
    if not with_lse:
        return out, None
    lse = lse.unflatten(1, layout.shape).transpose(0, 1)
    return out, lse.masked_fill(~layout.valid[:, None], -torch.inf)


def _cuts(layout: Layout) -> Int[Tensor, " S"]:
    """Where sequences begin in the flattened rows, and the end of the last.

    Padding and slack are sequences of their own, none longer than `Layout.longest`, so that every
    place is written and every gradient defined.
    """
    rows, width = layout.shape
    if layout.cu_seqlens is None:
        starts = torch.arange(0, (rows + 1) * width, width, device=layout.lengths.device)
        ends = starts[:-1] + layout.lengths
        return torch.cat([torch.stack([starts[:-1], ends], 1).flatten(), starts[-1:]]).to(torch.int32)
    pieces = torch.arange(1, -(-width // layout.longest) + 1, device=layout.lengths.device, dtype=torch.int32)
    return torch.cat([layout.cu_seqlens, (layout.cu_seqlens[-1:] + pieces * layout.longest).clamp_max(width)])

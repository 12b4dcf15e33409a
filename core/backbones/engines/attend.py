"""Softmax attention over padded and packed tensors."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from core.backbones.engines.rows import as_packed, as_rows
from core.data.layout import Layout
from core.data.mask import MaskSpec


def attend(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B G T E"],
    value: Float[Tensor, "B G T E"],
    mask: Bool[Tensor, "B L T"] | MaskSpec,
    layout: Layout | None = None,
    with_lse: bool = False,
) -> tuple[Float[Tensor, "B H L E"], Float[Tensor, "B H L"] | None]:
    """The attended values and, where asked for, the log-sum-exp of the scaled scores.

    G key heads serve H query heads in equal groups. `mask` is dense, true where a query sees a
    key, or a `MaskSpec` on a `layout` that queries and keys share. A query that sees nothing
    gets zeros and a log-sum-exp of -inf.
    """
    if isinstance(mask, Tensor):
        return _dense(query, key, value, mask, with_lse)
    if layout is None:
        raise ValueError("a MaskSpec needs the layout it speaks of")
    if not layout.is_packed:
        return _padded(query, key, value, mask, layout, with_lse)
    # Packed sequences are short beside their total: one row each costs far less than a T x T mask.
    rows = Layout.padded(layout.lengths, layout.longest)
    rows = rows if layout.prefix is None else rows.with_prefix(layout.prefix)
    hidden = ~rows.valid[:, None, :, None]
    query, key, value = (
        as_rows(part.transpose(1, 2), layout).transpose(1, 2).masked_fill(hidden, 0) for part in (query, key, value)
    )
    out, lse = _padded(query, key, value, mask, rows, with_lse)
    packed = as_packed(out.transpose(1, 2), layout).transpose(1, 2).masked_fill(~layout.valid[:, None, :, None], 0)
    if lse is not None:
        lse = as_packed(lse.transpose(1, 2), layout).transpose(1, 2).masked_fill(~layout.valid[:, None], -torch.inf)
    return packed, lse


def _padded(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B G L E"],
    value: Float[Tensor, "B G L E"],
    mask: MaskSpec,
    layout: Layout,
    with_lse: bool,
) -> tuple[Float[Tensor, "B H L E"], Float[Tensor, "B H L"] | None]:
    if mask != MaskSpec("causal") or with_lse:
        return _dense(query, key, value, mask.dense(layout), with_lse)
    # Padding stands to the right, where a causal query never looks.
    key, value = _shared(key, query), _shared(value, query)
    out = scaled_dot_product_attention(query, key, value, is_causal=True)
    return out.masked_fill(~layout.valid[:, None, :, None], 0), None


def _dense(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B G T E"],
    value: Float[Tensor, "B G T E"],
    mask: Bool[Tensor, "B L T"],
    with_lse: bool,
) -> tuple[Float[Tensor, "B H L E"], Float[Tensor, "B H L"] | None]:
    key, value = _shared(key, query), _shared(value, query)
    # A row that sees nothing would be 0/0: it sees everything instead, and is zeroed afterwards.
    blind = ~mask.any(-1, keepdim=True)
    seen = (mask | blind)[:, None]
    blind = blind[:, None]
    if not with_lse:
        out = scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return out.masked_fill(blind, 0), None
    scores = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).masked_fill(~seen, -torch.inf)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    lse = scores.logsumexp(-1)
    out = (scores - lse[..., None]).exp().to(value.dtype) @ value
    return out.masked_fill(blind, 0), lse.masked_fill(blind[..., 0], -torch.inf)


def _shared(part: Float[Tensor, "B G T E"], query: Float[Tensor, "B H L E"]) -> Float[Tensor, "B H T E"]:
    groups = query.shape[1] // part.shape[1]
    return part if groups == 1 else part.repeat_interleave(groups, 1)

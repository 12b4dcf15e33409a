"""The reference of softmax attention: a dense mask, any device and precision; packed sequences as one row each."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from core.backbones.engines.rows import as_packed, as_rows
from core.data.layout import Layout
from core.data.mask import MaskSpec


def attend_dense(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B G T E"],
    value: Float[Tensor, "B G T E"],
    mask: Bool[Tensor, "B L T"],
    with_lse: bool,
) -> tuple[Float[Tensor, "B H L E"], Float[Tensor, "B H L"] | None]:
    """`attend` under a mask that is true where a query sees a key."""
    return _seeing(query, key, value, *_sighted(mask), with_lse)


def attend_rows(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B G L E"],
    value: Float[Tensor, "B G L E"],
    mask: MaskSpec,
    layout: Layout,
    with_lse: bool,
) -> tuple[Float[Tensor, "B H L E"], Float[Tensor, "B H L"] | None]:
    """`attend` under any `MaskSpec`."""
    if not layout.is_packed:
        return _padded(query, key, value, mask, layout, with_lse)
    # Packed sequences are short beside their total: one row each costs far less than a T x T mask.
    rows = layout.once("rows", lambda: replace(Layout.padded(layout.lengths, layout.longest), prefix=layout.prefix))
    hidden = ~rows.valid[:, None, :, None]
    query, key, value = (
        as_rows(part.transpose(1, 2), layout).transpose(1, 2).masked_fill(hidden, 0) for part in (query, key, value)
    )
    out, lse = _padded(query, key, value, mask, rows, with_lse)
    packed = as_packed(out.transpose(1, 2), layout).transpose(1, 2).masked_fill(~layout.valid[:, None, :, None], 0)
    if lse is not None:
        lse = as_packed(lse.transpose(1, 2), layout).transpose(1, 2).masked_fill(~layout.valid[:, None], -torch.inf)
    return packed, lse


def shared(part: Float[Tensor, "B G T E"], query: Float[Tensor, "B H L E"]) -> Float[Tensor, "B H T E"]:
    """Keys or values, repeated for the query heads that share them."""
    groups = query.shape[1] // part.shape[1]
    return part if groups == 1 else part.repeat_interleave(groups, 1)


def _padded(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B G L E"],
    value: Float[Tensor, "B G L E"],
    mask: MaskSpec,
    layout: Layout,
    with_lse: bool,
) -> tuple[Float[Tensor, "B H L E"], Float[Tensor, "B H L"] | None]:
    if mask != MaskSpec("causal") or with_lse:
        seen, blind = layout.once(("dense", mask), lambda: _sighted(mask.dense(layout)))
        return _seeing(query, key, value, seen, blind, with_lse)
    # Padding stands to the right, where a causal query never looks.
    key, value = shared(key, query), shared(value, query)
    out = scaled_dot_product_attention(query, key, value, is_causal=True)
    return out.masked_fill(~layout.valid[:, None, :, None], 0), None


def _sighted(mask: Bool[Tensor, "B L T"]) -> tuple[Bool[Tensor, "B 1 L T"], Bool[Tensor, "B 1 L 1"]]:
    """The mask, open where a query sees nothing, and which queries those are.

    A row of such a query would be 0/0: it sees everything instead, and is zeroed afterwards.
    """
    blind = ~mask.any(-1, keepdim=True)
    return (mask | blind)[:, None], blind[:, None]


def _seeing(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B G T E"],
    value: Float[Tensor, "B G T E"],
    seen: Bool[Tensor, "B 1 L T"],
    blind: Bool[Tensor, "B 1 L 1"],
    with_lse: bool,
) -> tuple[Float[Tensor, "B H L E"], Float[Tensor, "B H L"] | None]:
    key, value = shared(key, query), shared(value, query)
    if not with_lse:
        out = scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return out.masked_fill(blind, 0), None
    scores = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).masked_fill(~seen, -torch.inf)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    lse = scores.logsumexp(-1)
    out = (scores - lse[..., None]).exp().to(value.dtype) @ value
    return out.masked_fill(blind, 0), lse.masked_fill(blind[..., 0], -torch.inf)

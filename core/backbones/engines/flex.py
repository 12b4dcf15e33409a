"""Softmax attention by torch's flex_attention: any mask, and tiles that it hides are skipped."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from core.data.layout import Layout
from core.data.mask import MaskSpec


def honours(head_dim: int) -> bool:
    """Whether the kernel can do this, on a GPU."""
    return 16 <= head_dim <= 256


def attend_flex(
    query: Float[Tensor, "B H L E"],
    key: Float[Tensor, "B G L E"],
    value: Float[Tensor, "B G L E"],
    mask: MaskSpec,
    layout: Layout,
    with_lse: bool,
) -> tuple[Float[Tensor, "B H L E"], Float[Tensor, "B H L"] | None]:
    """`attend` under any `MaskSpec`; on the CPU without gradients, and slower than the reference."""
    from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

    rows, width = layout.shape
    attention, tiles = flex_attention, create_block_mask
    if query.is_cuda and not torch.compiler.is_compiling():
        attention, tiles = _compiled(attention), _compiled(tiles)
    rule = mask.mask_mod(layout)
    seen = layout.once(
        ("flex", mask),
        # Torch counts the parameters of what it is given, which a checked function does not show.
        lambda: tiles(lambda b, h, q, k: rule(b, h, q, k), rows, None, width, width, device=query.device),
    )
    grouped = query.shape[1] != key.shape[1]
    out, aux = attention(query, key, value, block_mask=seen, enable_gqa=grouped, return_aux=AuxRequest(lse=with_lse))
    return out, aux.lse


@cache
def _compiled(function: Callable) -> Callable:
    """One compilation for batches of all shapes, and one more for each mask and way to ask."""
    # Past its limit the compiler would silently fall back on code that holds all scores: the whole graph or an error.
    compiled, limits = torch.compile(function, dynamic=True, fullgraph=True), cast(Any, torch.compiler.config)

    def call(*arguments: Any, **named: Any) -> Any:
        with limits.patch(recompile_limit=64):
            return compiled(*arguments, **named)

    return call

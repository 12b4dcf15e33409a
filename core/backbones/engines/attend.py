"""Softmax attention over padded and packed tensors."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from core.backbones.engines import dense, flex, varlen
from core.data.layout import Layout
from core.data.mask import MaskSpec

# Entries of a dense mask from which on kernels that hold none are taken although they have more to set up, such as 16
# sequences of 2048 tokens; `tests/core/backbones/test_attend_gpu.py` times both. Packed, the kernel for unequal lengths
# needs no such size: the reference has the rows to set up.
LARGE = 2**26


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

    The engine is chosen here. Half precision on a GPU goes to the fused kernel that honours the
    mask, where it is the faster; all else, fp32, fp64 and the CPU, to the dense reference.
    """
    if isinstance(mask, Tensor):
        return dense.attend_dense(query, key, value, mask, with_lse)
    if layout is None:
        raise ValueError("a MaskSpec needs the layout it speaks of")
    dtype, engine = _half_on_gpu(query), dense.attend_rows
    if dtype is not None:
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        engine = _fused(query.shape[-1], mask, layout, with_lse)
    return engine(query, key, value, mask, layout, with_lse)


def _fused(head_dim: int, mask: MaskSpec, layout: Layout, with_lse: bool) -> Callable:
    """The engine to take in half precision on a GPU."""
    large = layout.count * layout.longest**2 >= LARGE
    # The reference takes torch's own causal kernel there; and kernels want at least a token.
    if (mask == MaskSpec("causal") and not layout.is_packed and not with_lse) or not layout.count * layout.longest:
        return dense.attend_rows
    if varlen.honours(head_dim, mask, with_lse) and (large or layout.is_packed):
        return varlen.attend_varlen
    return flex.attend_flex if flex.honours(head_dim) and large else dense.attend_rows


def _half_on_gpu(query: Float[Tensor, "B H L E"]) -> torch.dtype | None:
    """The half precision in which a GPU would compute, None elsewhere."""
    if not query.is_cuda or not _has_kernels(query.device):
        return None
    dtype = query.dtype
    if dtype == torch.float32 and torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
    return dtype if dtype in (torch.float16, torch.bfloat16) else None


def _has_kernels(device: torch.device) -> bool:
    return torch.version.cuda is not None and torch.cuda.get_device_capability(device) >= (8, 0)

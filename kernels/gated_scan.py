"""First-order gated recurrence h_t = a_t * h_{t-1} + b_t, all steps at once."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def gated_scan(
    gate: Float[Tensor, "B L D"],
    value: Float[Tensor, "B L D"],
    reset: Bool[Tensor, "B L"] | None = None,
    initial: Float[Tensor, "B D"] | None = None,
) -> Float[Tensor, "B L D"]:
    """Every h_t of h_t = gate_t * h_{t-1} + value_t, from h_{-1} = `initial` (zero without).

    Where `reset` is set the past is forgotten: h_t = value_t. Computes in at least fp32 and
    returns that type. Any number of derivatives exist.
    """
    wide = torch.promote_types(value.dtype, torch.float32)
    gate, value = gate.to(wide), value.to(wide)
    if reset is not None:
        gate = gate.masked_fill(reset[..., None], 0)
    if initial is not None and value.shape[1]:
        first = value[:, :1] + gate[:, :1] * initial.to(wide)[:, None]
        value = torch.cat([first, value[:, 1:]], 1)
    return reference(gate, value)


def reference(gate: Float[Tensor, "B L D"], value: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
    """The recurrence from zero by odd-even reduction: depth 2 log2(L), work 2 L.

    Neighbours are composed in pairs, the half-length recurrence over pairs gives every odd step,
    and one more step from each of them gives the even ones.
    """
    length = value.shape[1]
    if length < 2:
        return value
    pairs = length // 2
    even_gate, odd_gate = gate[:, : 2 * pairs : 2], gate[:, 1::2]
    even_value, odd_value = value[:, : 2 * pairs : 2], value[:, 1::2]
    odd = reference(odd_gate * even_gate, odd_gate * even_value + odd_value)
    later = gate[:, 2::2] * odd[:, : (length - 1) // 2] + value[:, 2::2]
    even = torch.cat([value[:, :1], later], 1)
    woven = torch.stack([even[:, :pairs], odd], 2).flatten(1, 2)
    return torch.cat([woven, even[:, pairs:]], 1)

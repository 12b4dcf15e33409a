"""The nearest point that obeys several rules on numbers at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

_CYCLES = 10_000
_TOLERANCE = 1e-9

Step = Callable[[Float[Tensor, "R L C"], Int[Tensor, " R"]], Float[Tensor, "R L C"]]


def nearest(steps: Sequence[Step], point: Float[Tensor, "R L C"]) -> tuple[Float[Tensor, "R L C"], Int[Tensor, " K"]]:
    """Dykstra's projection onto an intersection of convex sets, and the rows for which it failed.

    Each of `steps` projects the rows named onto one set. Every row goes on until no step of a
    cycle moves it, so a row does not depend on its neighbours. That the cycle as a whole does
    not move it would prove nothing: the method can rest for many cycles at a wrong point.
    """
    rows = torch.arange(len(point), device=point.device)
    if len(steps) == 1:
        return steps[0](point, rows), rows[:0]
    result = point.clone()
    corrections = [torch.zeros_like(point) for _ in steps]
    for _ in range(_CYCLES):
        if not len(rows):
            break
        current = result[rows]
        moved = current.new_zeros(len(rows))
        for step, correction in zip(steps, corrections, strict=True):
            shifted = current + correction[rows]
            reached = step(shifted, rows)
            correction[rows] = shifted - reached
            moved = torch.maximum(moved, (reached - current).abs().flatten(1).amax(1))
            current = reached
        result[rows] = current
        rows = rows[moved > _TOLERANCE * (1 + current.abs().flatten(1).amax(1))]
    return result, rows

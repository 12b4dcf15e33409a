"""What every law says, and what counts as equal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.errors import UserError

_TOLERANCE = 1e-9
LEAST_P = 1e-5


def require(holds: bool, law: str) -> str:
    """The line of a law that holds; `UserError` for one that does not."""
    if not holds:
        raise UserError(f"law broken: {law}")
    return f"ok  {law}"


def near(one: Tensor, other: Tensor) -> bool:
    """Equal but for the rounding of fp64."""
    return torch.allclose(one, other, rtol=_TOLERANCE, atol=_TOLERANCE)


def alike(rows: Sequence[Tensor], others: Sequence[Tensor], tolerance: float = _TOLERANCE) -> bool:
    """Whether finished sequences are the same: tokens to the last one, numbers but for `tolerance`."""
    return len(rows) == len(others) and all(
        one.shape == other.shape and torch.allclose(one.double(), other.double(), rtol=tolerance, atol=tolerance)
        for one, other in zip(rows, others, strict=True)
    )

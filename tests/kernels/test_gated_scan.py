"""The scan against the recurrence written out, and its derivatives against finite differences."""

import pytest
import torch
from torch import Tensor

from kernels.gated_scan import gated_scan


def loop(gate: Tensor, value: Tensor, reset: Tensor, initial: Tensor) -> Tensor:
    state, found = initial, []
    for place in range(value.shape[1]):
        kept = torch.where(reset[:, place, None], 0, gate[:, place] * state)
        state = kept + value[:, place]
        found.append(state)
    return torch.stack(found, 1) if found else value


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 8, 33])
def test_against_the_loop(length: int) -> None:
    gate, value = torch.randn(2, 3, length, 4, dtype=torch.float64)
    reset, initial = torch.rand(3, length) < 0.2, torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(gated_scan(gate, value, reset, initial), loop(gate, value, reset, initial))
    nothing = torch.zeros(3, 4, dtype=torch.float64)
    torch.testing.assert_close(gated_scan(gate, value), loop(gate, value, torch.zeros_like(reset), nothing))


def test_first_and_second_derivatives() -> None:
    gate, value = (torch.randn(2, 6, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    initial = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    reset = torch.rand(2, 6) < 0.3
    scan = lambda a, b, h: gated_scan(a, b, reset, h)  # noqa: E731
    assert torch.autograd.gradcheck(scan, (gate, value, initial))
    assert torch.autograd.gradgradcheck(scan, (gate, value, initial))


def test_computes_in_at_least_fp32() -> None:
    for dtype, wide in (
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ):
        part = torch.rand(1, 5, 2, dtype=dtype)
        assert gated_scan(part, part).dtype == wide

"""Attention against its definition, and what its log-sum-exp is good for."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from core.backbones.engines import dense
from core.backbones.engines.attend import attend
from core.data import Layout, MaskSpec, pack, packed_layout, unpack


def definition(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """One query at a time, over the keys it sees."""
    out = torch.zeros(*query.shape[:3], value.shape[-1], dtype=value.dtype)
    lse = torch.full(query.shape[:3], -torch.inf, dtype=value.dtype)
    group = query.shape[1] // key.shape[1]
    for b, h, place in torch.cartesian_prod(*(torch.arange(size) for size in query.shape[:3])).tolist():
        seen = mask[b, place]
        if seen.any():
            scores = key[b, h // group, seen] @ query[b, h, place] / query.shape[-1] ** 0.5
            lse[b, h, place] = scores.logsumexp(0)
            out[b, h, place] = scores.softmax(0) @ value[b, h // group, seen]
    return out, lse


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    "spec",
    [MaskSpec("causal"), MaskSpec("full"), MaskSpec("full", 2), MaskSpec("causal", 2, 1), MaskSpec("causal", block=4)],
    ids=str,
)
def test_padded_and_packed_against_the_definition(spec: MaskSpec, groups: int) -> None:
    layout = Layout.padded(torch.tensor([4, 0, 1, 6]), 7)
    query = torch.randn(4, 4, 7, 6, dtype=torch.float64)
    key, value = torch.randn(2, 4, groups, 7, 6, dtype=torch.float64)
    wanted, wanted_lse = definition(query, key, value, spec.dense(layout))
    twin = packed_layout(layout, 14)
    flat = [pack(part.transpose(1, 2), layout, 14).transpose(1, 2) for part in (query, key, value)]
    for with_lse in (False, True):
        out, lse = attend(query, key, value, spec, layout, with_lse)
        torch.testing.assert_close(out, wanted)
        tight, tight_lse = attend(*flat, spec, twin, with_lse)
        torch.testing.assert_close(unpack(tight.transpose(1, 2), twin, 7).transpose(1, 2), wanted)
        if not with_lse:
            assert lse is None and tight_lse is None
            continue
        torch.testing.assert_close(lse, wanted_lse)
        rows = unpack(tight_lse.transpose(1, 2), twin, 7, -torch.inf)
        torch.testing.assert_close(rows.transpose(1, 2), wanted_lse)


def test_log_sum_exp_joins_two_halves() -> None:
    query, key, value = torch.randn(3, 2, 2, 8, 4, dtype=torch.float64)
    mask = torch.ones(2, 8, 8, dtype=torch.bool)
    whole, _ = attend(query, key, value, mask)
    parts = [attend(query, key[:, :, s], value[:, :, s], mask[:, :, s], with_lse=True) for s in (slice(3), slice(3, 8))]
    weight = torch.stack([lse for _, lse in parts]).softmax(0)[..., None]
    torch.testing.assert_close(weight[0] * parts[0][0] + weight[1] * parts[1][0], whole)


def test_gradients_of_blind_rows_are_finite() -> None:
    query, key, value = (torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    for with_lse in (False, True):
        out, _ = attend(query, key, value, torch.zeros(1, 3, 3, dtype=torch.bool), with_lse=with_lse)
        assert not out.any()
        for gradient in torch.autograd.grad(out.sum(), (query, key, value)):
            assert not gradient.any()


@pytest.mark.parametrize("lengths", [[], [0, 0]], ids=str)
def test_nothing_to_read(lengths: list[int]) -> None:
    layout = Layout.packed(torch.tensor(lengths, dtype=torch.long), 3)
    part = torch.randn(1, 2, 3, 4)
    assert not attend(part, part, part, MaskSpec("full"), layout)[0].any()


def test_a_spec_needs_its_layout() -> None:
    part = torch.randn(1, 2, 3, 4)
    with pytest.raises(ValueError, match="layout"):
        attend(part, part, part, MaskSpec("full"))


class Reads(TorchDispatchMode):
    """Counts the numbers that were brought from tensors to the host."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("spec", [MaskSpec("causal"), MaskSpec("full", 2)])
def test_packed_attention_never_waits_for_the_device(spec: MaskSpec) -> None:
    with Reads() as reads:
        layout = Layout.packed(torch.tensor([3, 0, 2]), 6)
    assert reads.count == 1
    part = torch.randn(1, 2, 6, 4)
    with Reads() as reads:
        attend(part, part, part, spec, layout, with_lse=True)
    assert reads.count == 0


def test_planted_fault_in_the_log_sum_exp_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    true = dense._seeing

    def changed(*arguments: object) -> tuple[Tensor, Tensor | None]:
        out, lse = true(*arguments)  # type: ignore[arg-type]
        return out, None if lse is None else 1.01 * lse

    monkeypatch.setattr(dense, "_seeing", changed)
    for law in (
        test_log_sum_exp_joins_two_halves,
        lambda: test_padded_and_packed_against_the_definition(MaskSpec("full"), 2),
    ):
        with pytest.raises(AssertionError):
            law()

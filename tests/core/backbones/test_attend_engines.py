"""Each engine of attention against its definition, as far as a CPU runs it, and which one is taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from core.backbones.engines import attend as module
from core.backbones.engines import dense, flex, varlen
from core.data import Layout, MaskSpec
from tests.core.backbones.test_attend import Reads, definition

CAUSAL, FULL, BLOCK = MaskSpec("causal"), MaskSpec("full"), MaskSpec("causal", block=3)
EVERYTHING = MaskSpec("prefix", 5, 2, 4)
LENGTHS = [4, 0, 1, 7]
KINDS = pytest.mark.parametrize("kind", ["padded", "packed"])


def layout_of(kind: str, lengths: list[int] = LENGTHS, slack: int = 9) -> Layout:
    sizes = torch.tensor(lengths)
    layout = Layout.padded(sizes, max(lengths) + 1) if kind == "padded" else Layout.packed(sizes, sum(lengths) + slack)
    return layout.with_prefix(sizes.clamp_max(2))


def parts(layout: Layout, groups: int = 2, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    rows, length = layout.shape
    return [torch.randn(rows, count, length, 6, dtype=dtype) for count in (4, groups, groups)]


# --- flex ------------------------------------------------------------------------------------


def check_flex(kind: str, mask: MaskSpec, dtype: torch.dtype = torch.float64) -> None:
    """The unfused form, which needs no compiler, is the definition."""
    layout = layout_of(kind)
    given = parts(layout, dtype=dtype)
    wanted = definition(*given, mask.dense(layout))
    for with_lse in (False, True):
        out, lse = flex.attend_flex(*given, mask, layout, with_lse)
        assert torch.allclose(out, wanted[0], rtol=0, atol=1e-10 if dtype == torch.float64 else 1e-5)
        assert (lse is not None) == with_lse
        if lse is not None:
            assert torch.allclose(lse.exp().to(dtype), wanted[1].exp(), rtol=1e-10 if dtype == torch.float64 else 1e-5)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.filterwarnings("ignore:flex_attention called without")
@KINDS
@pytest.mark.parametrize("mask", [BLOCK, EVERYTHING, MaskSpec("full", 3, 1)], ids=str)
def test_flex_is_the_definition(kind: str, mask: MaskSpec) -> None:
    check_flex(kind, mask)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_is_the_definition_in_single_precision() -> None:
    check_flex("padded", EVERYTHING, torch.float32)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_tiles_are_made_once_for_all_layers_and_without_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.nn.attention import flex_attention

    made: list[int] = []
    make = flex_attention.create_block_mask

    def counted(*arguments: object, **named: object) -> object:
        with Reads() as reads:
            tiles = make(*arguments, **named)  # type: ignore[arg-type]
        made.append(reads.count)
        return tiles

    monkeypatch.setattr(flex_attention, "create_block_mask", counted)
    layout = layout_of("packed")
    for mask in (BLOCK, BLOCK, EVERYTHING, BLOCK):
        flex.attend_flex(*parts(layout), mask, layout, False)
    assert made == [0, 0]


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("mask", [BLOCK, MaskSpec("causal", 128, 4)], ids=str)
def test_tiles_hide_what_the_mask_hides(mask: MaskSpec) -> None:
    layout, size = layout_of("packed", [300, 200, 400], 124), 128
    flex.attend_flex(*parts(layout), mask, layout, False)
    (tiles,) = layout.derived.values()
    seen = mask.dense(layout)[0].unfold(0, size, size).unfold(1, size, size)
    assert torch.equal(tiles.to_dense()[0, 0].bool(), seen.flatten(-2).any(-1))
    assert tiles.sparsity() > 50


# --- varlen ----------------------------------------------------------------------------------


def kernel(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    return_aux: tuple,
    window_size: tuple[int, int],
) -> tuple[Tensor, Tensor]:
    """What torch's kernel promises: tokens behind the last sequence are not written."""
    cuts = cu_seq_q.tolist()
    assert cu_seq_q.dtype == torch.int32 and torch.equal(cu_seq_q, cu_seq_k) and cuts == sorted(cuts)
    assert query.shape == key.shape == value.shape and return_aux[0]
    assert cuts[0] == 0
    outs, lses = [], []
    left, right = (len(query) if side < 0 else side for side in window_size)
    for start, end in zip(cuts[:-1], cuts[1:], strict=True):
        assert end - start <= max_q == max_k
        place = torch.arange(end - start)
        behind = place[:, None] - place
        scores = torch.einsum("qhe,khe->hqk", query[start:end], key[start:end]) * query.shape[-1] ** -0.5
        scores = scores.masked_fill((behind > left) | (-behind > right), -torch.inf)
        outs.append(torch.einsum("hqk,khe->qhe", scores.softmax(-1), value[start:end]))
        lses.append(scores.logsumexp(-1))
    rest = query[cuts[-1] :] * torch.nan
    return torch.cat([*outs, rest]), torch.cat([*lses, rest.sum(-1).T], 1)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel itself needs a GPU: `test_attend_gpu.py`."""
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)


PLAIN = [CAUSAL, FULL, MaskSpec("causal", 3), MaskSpec("full", 2), MaskSpec("causal", 1)]


def check_varlen(kind: str, mask: MaskSpec) -> None:
    """Outputs, log-sum-exp and gradients are the reference's, also of padding and slack."""
    layout = layout_of(kind)
    given = [part.requires_grad_() for part in parts(layout)]
    weight = torch.randn_like(given[0])
    found = []
    for engine in (dense.attend_rows, varlen.attend_varlen):
        out, _ = engine(*given, mask, layout, False)
        again, lse = engine(*given, mask, layout, True)
        assert lse is not None and torch.allclose(out, again, atol=1e-12)
        found.append([out, lse.exp(), *torch.autograd.grad((out * weight).sum(), given)])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("stand_in")
@KINDS
@pytest.mark.parametrize("mask", PLAIN, ids=str)
def test_varlen_is_the_reference(kind: str, mask: MaskSpec) -> None:
    check_varlen(kind, mask)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("slack", [0, 1, 8, 30])
def test_slack_is_cut_into_pieces_no_longer_than_a_sequence(slack: int) -> None:
    layout = layout_of("packed", slack=slack)
    with Reads() as reads:
        cuts = varlen._cuts(layout)
    assert reads.count == 0
    assert cuts[-1] == layout.shape[1] and cuts.diff().max() <= layout.longest and (cuts.diff() >= 0).all()
    assert cuts[: len(LENGTHS) + 1].tolist() == [0, 4, 4, 5, 12]


# --- which one -------------------------------------------------------------------------------


LONG, SHORT = [2048] * 16, [50] * 16
# mask, lengths, kind, dtype, gradients of the log-sum-exp asked for: engine
TAKEN: list[tuple[MaskSpec, list[int], str, torch.dtype, bool, Callable]] = [
    *((mask, LONG, "packed", torch.float64, False, dense.attend_rows) for mask in PLAIN),
    *((mask, LONG, "packed", torch.float32, False, dense.attend_rows) for mask in PLAIN),
    *((mask, LONG, "packed", torch.bfloat16, False, varlen.attend_varlen) for mask in PLAIN),
    *((mask, SHORT, "packed", torch.bfloat16, False, varlen.attend_varlen) for mask in PLAIN),
    (FULL, [], "packed", torch.bfloat16, False, dense.attend_rows),
    (FULL, [0, 0], "packed", torch.bfloat16, False, dense.attend_rows),
    (CAUSAL, LONG, "padded", torch.bfloat16, False, dense.attend_rows),
    (FULL, SHORT, "padded", torch.bfloat16, False, dense.attend_rows),
    (FULL, LONG, "padded", torch.float16, False, varlen.attend_varlen),
    (BLOCK, LONG, "padded", torch.bfloat16, False, flex.attend_flex),
    (BLOCK, SHORT, "packed", torch.bfloat16, False, dense.attend_rows),
    (EVERYTHING, LONG, "packed", torch.float16, False, flex.attend_flex),
    (FULL, LONG, "packed", torch.bfloat16, True, flex.attend_flex),
    (CAUSAL, LONG, "padded", torch.bfloat16, True, flex.attend_flex),
    (FULL, SHORT, "packed", torch.bfloat16, True, dense.attend_rows),
]  # fmt: skip


def engine_of(
    mask: MaskSpec, layout: Layout, dtype: torch.dtype, with_lse: bool = False, width: int = 64, device: str = "cuda"
) -> Callable:
    """What `attend` would call, without a device."""
    taken: list[Callable] = []
    with FakeTensorMode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_has_kernels", lambda device: True)
        for owner, name in ((dense, "attend_rows"), (varlen, "attend_varlen"), (flex, "attend_flex")):
            true = getattr(owner, name)
            patch.setattr(owner, name, lambda *a, t=true: (taken.append(t), (a[0], None))[1])
        part = torch.empty(*layout.shape[:1], 4, layout.shape[1], width, dtype=dtype, device=device)
        module.attend(part, part, part, mask, layout, with_lse)
    return taken[0]


def check_taken() -> None:
    for mask, lengths, kind, dtype, with_lse, wanted in TAKEN:
        sizes = torch.tensor(lengths, dtype=torch.long)
        width = max(lengths, default=0) if kind == "padded" else sum(lengths)
        layout = getattr(Layout, kind)(sizes, width).with_prefix(sizes)
        found = engine_of(mask, layout, dtype, with_lse)
        assert found is wanted, f"{mask} {kind} {dtype}: {found.__name__} instead of {wanted.__name__}"


@pytest.mark.usefixtures("unchecked_shapes")
def test_the_engine_follows_device_precision_and_mask() -> None:
    check_taken()


@pytest.mark.usefixtures("unchecked_shapes")
def test_what_kernels_cannot_do_goes_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout.packed(torch.tensor(LONG), sum(LONG))
    assert engine_of(FULL, layout, torch.bfloat16, device="cpu") is dense.attend_rows
    assert engine_of(FULL, layout, torch.bfloat16, width=12) is dense.attend_rows
    assert engine_of(FULL, layout, torch.bfloat16, width=20) is flex.attend_flex
    assert engine_of(FULL, layout, torch.bfloat16, width=512) is dense.attend_rows
    with torch.no_grad():
        assert engine_of(FULL, layout, torch.bfloat16, with_lse=True) is varlen.attend_varlen
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: kind == "cuda")
    monkeypatch.setattr(torch, "get_autocast_dtype", lambda kind: torch.bfloat16)
    assert engine_of(FULL, layout, torch.float32) is varlen.attend_varlen
    assert engine_of(FULL, layout, torch.float64) is dense.attend_rows


# --- planted faults --------------------------------------------------------------------------


def seen_by_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MaskSpec, "mask_mod", lambda self, layout: lambda b, h, q, k: q >= 0)


def block_lost(patch: pytest.MonkeyPatch) -> None:
    true = MaskSpec.mask_mod
    patch.setattr(MaskSpec, "mask_mod", lambda self, layout: true(replace(self, block=None), layout))


def tiles_shared_by_masks(patch: pytest.MonkeyPatch) -> None:
    true = Layout.once
    patch.setattr(Layout, "once", lambda self, key, make: true(self, key[0], make))


def window_one_wider(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        "torch.nn.attention.varlen.varlen_attn",
        lambda *a, window_size, **n: kernel(*a, window_size=tuple(s + (s > 0) for s in window_size), **n),
    )


def slack_left_out(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(varlen, "_cuts", lambda layout: layout.cu_seqlens)


def padding_in_the_sequence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(varlen, "_cuts", lambda layout: torch.arange(0, 33, 8, dtype=torch.int32))


def half_for_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(module, "_half_on_gpu", lambda query: query.dtype)


def any_length(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(module, "LARGE", 0)


def gradient_lost(patch: pytest.MonkeyPatch) -> None:
    true = varlen.honours
    patch.setattr(varlen, "honours", lambda head_dim, mask, with_lse: true(head_dim, mask, False))


def two_masks_on_one_layout() -> None:
    layout = layout_of("padded")
    given = parts(layout)
    for mask in (MaskSpec("prefix"), BLOCK):
        out, _ = flex.attend_flex(*given, mask, layout, False)
        assert torch.allclose(out, definition(*given, mask.dense(layout))[0])


@pytest.mark.usefixtures("unchecked_shapes", "stand_in")
@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (seen_by_all, lambda: check_flex("packed", BLOCK)),
        (block_lost, lambda: check_flex("padded", BLOCK)),
        (tiles_shared_by_masks, two_masks_on_one_layout),
        (window_one_wider, lambda: check_varlen("packed", MaskSpec("causal", 3))),
        (slack_left_out, lambda: check_varlen("packed", FULL)),
        (padding_in_the_sequence, lambda: check_varlen("padded", FULL)),
        (half_for_all, check_taken),
        (any_length, check_taken),
        (gradient_lost, check_taken),
    ],
)
def test_planted_fault_is_caught(fault: Callable, law: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    law()
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()

"""The engines of attention on a GPU: as exact as the reference in the same precision, and the faster one chosen.

`python -m tests.core.backbones.test_attend_gpu` prints the time of each engine on each shape; the one that
`attend` takes has a star.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import product
from statistics import median

import pytest
import torch
from torch import Tensor

from core.backbones.engines import attend as module
from core.backbones.engines import dense, flex, varlen
from core.backbones.engines.attend import attend
from core.backbones.mixers.attention import Attention
from core.data import Layout, MaskSpec

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]

Engine = Callable[..., tuple[Tensor, Tensor | None]]
ENGINES: dict[str, Engine] = {
    "dense": dense.attend_rows,
    "varlen": varlen.attend_varlen,
    "flex": flex.attend_flex,
}
CAUSAL, FULL = MaskSpec("causal"), MaskSpec("full")
PLAIN = [CAUSAL, FULL, MaskSpec("causal", 128), MaskSpec("full", 128)]
OTHERS = [MaskSpec("prefix"), MaskSpec("causal", block=16), MaskSpec("causal", 128, 4), MaskSpec("prefix", 128, 4, 48)]


def honours(engine: str, mask: MaskSpec) -> bool:
    return engine != "varlen" or mask in PLAIN


def layout_of(kind: str, lengths: list[int], slack: int = 70) -> Layout:
    sizes = torch.tensor(lengths, device="cuda")
    layout = Layout.padded(sizes, max(lengths)) if kind == "padded" else Layout.packed(sizes, sum(lengths) + slack)
    return layout.with_prefix(sizes // 3)


def parts(layout: Layout, heads: int = 4, groups: int = 4, width: int = 64) -> list[Tensor]:
    """Laid out as a mixer has them: queries and keys as rotary positions leave them, values as a linear map does."""
    rows, length = layout.shape
    found = [torch.randn(rows, length, count, width, device="cuda").bfloat16() for count in (heads, groups, groups)]
    query, key, value = (part.transpose(1, 2) for part in found)
    return [query.contiguous(), key.contiguous(), value]


@pytest.fixture
def every_length_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 0)


def answers(engine: Engine, given: list[Tensor], mask: MaskSpec, layout: Layout, weight: Tensor) -> list[Tensor]:
    """Output, log-sum-exp, and the gradients of a weighted sum of the output."""
    given = [part.detach().clone().requires_grad_() for part in given]
    out, _ = engine(*given, mask, layout, False)
    gradients = torch.autograd.grad((out * weight.to(out.dtype)).sum(), given)
    with torch.no_grad():
        again, lse = engine(*given, mask, layout, True)
    assert lse is not None and (again - out).abs().max() < 0.1
    assert not out.transpose(1, 2)[~layout.valid].any(), "padding is not zero"
    assert (lse.transpose(1, 2)[~layout.valid] == -torch.inf).all(), "padding has a log-sum-exp"
    return [out, lse.transpose(1, 2)[layout.valid], *gradients]


def check_as_exact_as_dense(engine: Engine, mask: MaskSpec, layout: Layout, groups: int) -> None:
    """At most twice the error of the dense reference in bf16, against the reference in fp64."""
    given = parts(layout, groups=groups)
    weight = torch.randn_like(given[0])
    truth = answers(dense.attend_rows, [part.double() for part in given], mask, layout, weight)
    usual = answers(dense.attend_rows, given, mask, layout, weight)
    found = answers(engine, given, mask, layout, weight)
    for name, exact, one, other in zip(("out", "lse", "dq", "dk", "dv"), truth, usual, found, strict=True):
        assert one.shape == other.shape
        bound = 2 * (one.double() - exact).norm() + 1e-5 * exact.norm()
        gap = (other.double() - exact).norm()
        assert not (not gap <= bound), f"{name} is off by {gap:.2e}, twice the reference's error is {bound:.2e}"


RAGGED = [700, 0, 1, 130, 512]


@pytest.mark.parametrize(("kind", "groups"), [("padded", 4), ("packed", 2)])
@pytest.mark.parametrize(("engine", "mask"), [(e, m) for e, m in product(("varlen", "flex"), PLAIN + OTHERS)], ids=str)
def test_engines_agree(engine: str, mask: MaskSpec, kind: str, groups: int) -> None:
    if honours(engine, mask):
        check_as_exact_as_dense(ENGINES[engine], mask, layout_of(kind, RAGGED), groups)


def test_planted_faults_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def off(query: Tensor, *rest: object) -> tuple[Tensor, Tensor | None]:
        return varlen.attend_varlen(1.02 * query, *rest)  # type: ignore[arg-type]

    with pytest.raises(AssertionError):
        check_as_exact_as_dense(off, FULL, layout_of("packed", RAGGED), 4)
    cuts = varlen._cuts
    monkeypatch.setattr(varlen, "_cuts", lambda layout: cuts(layout)[[0, *range(3, len(cuts(layout)))]])
    with pytest.raises(AssertionError):
        check_as_exact_as_dense(varlen.attend_varlen, FULL, layout_of("packed", RAGGED), 4)


def test_the_log_sum_exp_of_flex_has_a_gradient() -> None:
    layout = layout_of("padded", [600, 40])
    given = parts(layout)
    found = []
    for engine, dtype in ((dense.attend_rows, torch.float64), (flex.attend_flex, torch.bfloat16)):
        query = given[0].to(dtype).requires_grad_()
        _, lse = engine(query, *(part.to(dtype) for part in given[1:]), FULL, layout, True)
        assert lse is not None
        found += torch.autograd.grad(lse.masked_fill(~layout.valid[:, None], 0).sum(), query)
    assert (found[1].double() - found[0]).norm() < 0.02 * found[0].norm()


@contextmanager
def no_wait() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.usefixtures("every_length_is_large")
@pytest.mark.parametrize("kind", ["padded", "packed"])
@pytest.mark.parametrize("mask", [FULL, MaskSpec("causal", block=16)], ids=str)
def test_no_engine_waits_for_the_device(mask: MaskSpec, kind: str) -> None:
    # The first round compiles.
    for watch in (nullcontext, no_wait):
        layout = layout_of(kind, RAGGED)
        given = [part.requires_grad_() for part in parts(layout)]
        with watch():
            out, _lse = attend(*given, mask, layout)
            out.sum().backward()


@pytest.mark.usefixtures("every_length_is_large")
@pytest.mark.parametrize("mask", [FULL, MaskSpec("causal", 128), MaskSpec("causal", block=16)], ids=str)
def test_a_compiled_mixer_is_the_mixer(mask: MaskSpec) -> None:
    mixer = Attention(64, mask).cuda().bfloat16()
    compiled = torch.compile(mixer)
    for kind in ("padded", "packed"):
        layout = layout_of(kind, RAGGED)
        h = torch.randn(*layout.shape, 64, device="cuda").bfloat16()
        near = mixer(h, layout)[0].double()
        assert (compiled(h, layout)[0].double() - near).norm() < 0.02 * near.norm()


def test_autocast_takes_the_fused_engines_and_fp32_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    for name, owner, function in (("dense", dense, "attend_rows"), ("varlen", varlen, "attend_varlen")):
        engine = ENGINES[name]
        monkeypatch.setattr(owner, function, lambda *a, e=engine, n=name: (taken.append(n), e(*a))[1])
    layout = layout_of("packed", RAGGED)
    given = [part.float() for part in parts(layout)]
    attend(*given, FULL, layout)
    with torch.autocast("cuda", torch.bfloat16):
        out, _ = attend(*given, FULL, layout)
    assert taken == ["dense", "varlen"] and out.dtype == torch.bfloat16


# --- time -----------------------------------------------------------------------------------


def ragged(total: int, longest: int) -> list[int]:
    """Lengths between a quarter of the longest and the longest."""
    generator, lengths = torch.Generator().manual_seed(0), []
    while total > 0:
        lengths.append(min(total, int(torch.randint(longest // 4, longest + 1, (), generator=generator))))
        total -= lengths[-1]
    return lengths


SHAPES: dict[str, Callable[[], Layout]] = {
    "padded B512 L64": lambda: layout_of("padded", ragged(512 * 40, 64)[:512]),
    "padded B64 L512": lambda: layout_of("padded", [512] * 64),
    "padded B64 L512 ragged": lambda: layout_of("padded", ragged(64 * 512, 512)[:64]),
    "padded B16 L2048": lambda: layout_of("padded", [2048] * 16),
    "packed 16k of <= 64": lambda: layout_of("packed", ragged(16384, 64), 0),
    "packed 16k of <= 512": lambda: layout_of("packed", ragged(16384, 512), 0),
    "packed 16k of <= 4096": lambda: layout_of("packed", ragged(16384, 4096), 0),
}
TIMED = [FULL, CAUSAL, MaskSpec("causal", 128), MaskSpec("causal", block=16), MaskSpec("causal", 128, 4)]


def milliseconds(run: Callable[[], object], rounds: int = 20) -> float:
    """Median over rounds, on the device."""
    for _ in range(3):
        run()
    found = []
    for _ in range(rounds):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end))
    return median(found)


def times_of(engine: Engine, mask: MaskSpec, layout: Layout, layers: int = 4) -> tuple[float, float]:
    """Milliseconds a layer, forward alone and with backward; what is made once a layout is spread over the layers."""
    given = [part.requires_grad_() for part in parts(layout, 8, 8)]
    weight = torch.randn_like(given[0])

    def forward() -> list[Tensor]:
        layout.derived.clear()
        return [engine(*given, mask, layout, False)[0] for _ in range(layers)]

    def both() -> None:
        for out in forward():
            torch.autograd.grad(out, given, weight)

    with torch.no_grad():
        alone = milliseconds(forward)
    return alone / layers, milliseconds(both) / layers


@pytest.mark.parametrize("mask", TIMED, ids=str)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_chosen_engine_is_not_slower_than_the_reference(shape: str, mask: MaskSpec) -> None:
    reference, fast = (times_of(engine, mask, SHAPES[shape]()) for engine in (dense.attend_rows, attend))
    # A fifth is within the noise of small shapes, whose time is the launching of kernels.
    assert fast[1] <= 1.2 * reference[1], f"{fast[1]:.3f} ms against {reference[1]:.3f} ms"


def main() -> None:
    print(torch.__version__, torch.cuda.get_device_name(), "bf16, 8 heads of 64, ms a layer: forward / with backward")
    for mask, (shape, make) in product(TIMED, SHAPES.items()):
        cells, taken = [], module._fused(64, mask, make(), False)
        for name, engine in ENGINES.items():
            if honours(name, mask):
                alone, both = times_of(engine, mask, make())
                cells.append(f"{name}{'*' * (engine is taken)} {alone:.3f} / {both:.3f}")
        print(f"{shape:24} {mask.mode} w{mask.window} s{mask.sinks} b{mask.block}: " + "   ".join(cells), flush=True)


if __name__ == "__main__":
    main()

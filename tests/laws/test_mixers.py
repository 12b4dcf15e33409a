"""The laws of sequence mixers, for every registered member and by what it declares; each with planted faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import jaxtyping
import pytest
import torch
import yaml
from torch import Tensor

from core.backbones.engines import attend as attend_module
from core.backbones.mixers import attention, base, bidirectional, min_gru, registry
from core.backbones.mixers._build import build_mixer
from core.backbones.mixers.base import SequenceMixer
from core.backbones.state import KeyValue, Recurrent, State
from core.data import Layout, MaskSpec
from tests.laws import mixer_laws as laws

CONFIGS = Path(__file__).parents[2] / "configs" / "mixer"
WIDTH = 8
MASKS = [
    MaskSpec(mode, window, sinks)
    for mode, (window, sinks) in product(("causal", "full", "prefix"), ((None, 0), (3, 0), (3, 2)))
]
MEMBERS = registry.members()


def build(key: str, mask: MaskSpec, dtype: torch.dtype = torch.float64) -> SequenceMixer:
    """The member with the options of its YAML, small, every parameter random."""
    options = yaml.safe_load((CONFIGS / f"{key}.yaml").read_text())
    mixer = build_mixer({**options, "window": None, "sinks": 0}, WIDTH, mask).to(dtype)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_(std=0.5)
    return mixer


def honoured(key: str) -> list[MaskSpec]:
    return [mask for mask in MASKS if mask.features <= MEMBERS[key].capabilities.masks]


def name(key: str, mask: MaskSpec) -> str:
    return f"{key}-{mask.mode}" + (f"-w{mask.window}s{mask.sinks}" if mask.window else "")


CASES = [pytest.param(key, mask, id=name(key, mask)) for key in MEMBERS for mask in honoured(key)]
DECODERS = [
    pytest.param(key, mask, id=name(key, mask))
    for key, member in MEMBERS.items()
    if member.capabilities.state != "none"
    for mask in honoured(key)
    if mask.mode == "causal"
]
PRECISIONS = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["fp64", "fp32"])


@PRECISIONS
@pytest.mark.parametrize("law", [laws.check_chunks, laws.check_steps, laws.check_rollback], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("key", "mask"), DECODERS)
def test_decoding(key: str, mask: MaskSpec, law: Callable, dtype: torch.dtype) -> None:
    law(build(key, mask, dtype))


@pytest.mark.parametrize("law", [laws.check_state, laws.check_forgotten], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("key", "mask"), DECODERS)
def test_state(key: str, mask: MaskSpec, law: Callable) -> None:
    law(build(key, mask))


@PRECISIONS
@pytest.mark.parametrize("law", [laws.check_packed, laws.check_padding], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("key", "mask"), CASES)
def test_layouts(key: str, mask: MaskSpec, law: Callable, dtype: torch.dtype) -> None:
    law(build(key, mask, dtype))


@pytest.mark.parametrize("law", [laws.check_visibility, laws.check_permutation], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("key", "mask"), CASES)
def test_dependence(key: str, mask: MaskSpec, law: Callable) -> None:
    law(build(key, mask))


@pytest.mark.parametrize(("key", "mask"), CASES)
def test_saved(key: str, mask: MaskSpec) -> None:
    laws.check_saved(build(key, mask), lambda: build(key, mask))


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """The tests' run-time shape checks are no part of what is compiled."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("key", MEMBERS)
def test_compiled(key: str) -> None:
    torch.compiler.reset()
    laws.check_compiled(build(key, honoured(key)[0]))


@pytest.mark.parametrize("key", MEMBERS)
def test_refusals(key: str) -> None:
    laws.check_refusals(lambda mask: build(key, mask), MASKS, MEMBERS[key].capabilities.masks)


@pytest.mark.parametrize("key", MEMBERS)
def test_declaration(key: str) -> None:
    check_declaration(MEMBERS[key], lambda mask: build(key, mask))


@pytest.mark.parametrize("key", MEMBERS)
def test_paper_is_named(key: str) -> None:
    assert MEMBERS[key].paper.title


# --- the frozen table: what a family must declare, whatever a member would rather ----------


FAMILIES: dict[type[State], Callable[[base.Capabilities], bool]] = {
    Recurrent: lambda has: has.state == "constant" and has.packed and "causal" in has.masks and has.cost <= 1.5,
    KeyValue: lambda has: has.packed and has.masks == {"causal", "full", "prefix", "window", "sinks"},
}


def check_declaration(member: type[SequenceMixer], make: Callable[[MaskSpec], SequenceMixer]) -> None:
    """The kind of state decides the family; one that cannot decode must see whole sequences."""
    has = member.capabilities
    assert has.packed
    if has.state == "none":
        assert "full" in has.masks, "neither decodes nor sees whole sequences"
        try:
            make(MaskSpec("full")).init_state(1)
        except ValueError:
            return
        raise AssertionError("declares no state, but has one")
    mixer = make(MaskSpec("causal"))
    assert FAMILIES[type(mixer.init_state(1))](has), f"{has} is less than the family must declare"
    if has.state in ("constant", "ring"):
        laws.check_size(mixer)
    if "window" in has.masks:
        laws.check_size(make(MaskSpec("causal", 3, 2)))


# --- planted faults: one line each, and the law must fail ---------------------------------


Patch = Callable[[pytest.MonkeyPatch], None]


def wrapped(owner: object, attribute: str, change: Callable) -> Patch:
    """Replaces `owner.attribute` by `change(original)`."""
    return lambda patch: patch.setattr(owner, attribute, change(getattr(owner, attribute)))


def without_initial(scan: Callable) -> Callable:
    return lambda gate, value, reset=None, initial=None: scan(gate, value, reset, None)


def without_reset(scan: Callable) -> Callable:
    return lambda gate, value, reset=None, initial=None: scan(gate, value, None, initial)


def shifted_truncate(truncate: Callable) -> Callable:
    # One token too many is kept, under the right position.
    return lambda self, length: replace(truncate(self, (length + 1).minimum(self.position)), position=length)


def any_truncate(truncate: Callable) -> Callable:
    return lambda self, length: replace(self, position=length)


def in_place(step: Callable) -> Callable:
    def faulty(self: SequenceMixer, h: Tensor, state: State) -> tuple[Tensor, State]:
        found = step(self, h, state)
        state.position.add_(1)
        return found

    return faulty


def whole_row(reversal: Callable) -> Callable:
    # The row is turned around, not each sequence in it.
    return lambda layout: torch.arange(layout.shape[1]).flip(0).expand(layout.shape)


def everything(dense: Callable) -> Callable:
    return lambda self, layout: torch.ones_like(dense(self, layout))


def first_row(select: Callable) -> Callable:
    return lambda self, index: select(self, torch.zeros_like(index))


def order_dependent(attend: Callable) -> Callable:
    def faulty(query: Tensor, *rest: object) -> tuple[Tensor, Tensor | None]:
        out, lse = attend(query, *rest)
        return out * torch.arange(1, len(out) + 1, dtype=out.dtype)[:, None, None, None], lse

    return faulty


def shorter_ring(init_state: Callable) -> Callable:
    def faulty(self: SequenceMixer, n: int) -> KeyValue:
        state = init_state(self, n)
        return replace(state, keys=state.keys[:, :, 3:], values=state.values[:, :, 3:], places=state.places[:, 3:])

    return faulty


def unsaved(forward: Callable) -> Callable:
    def faulty(self: SequenceMixer, h: Tensor, layout: Layout, *rest: object, **named: object) -> tuple:
        y, state = forward(self, h, layout, *rest, **named)
        return y * self.__dict__.setdefault("scale", torch.rand(()).item()), state

    return faulty


def uncompiled(forward: Callable) -> Callable:
    def faulty(self: SequenceMixer, h: Tensor, layout: Layout, *rest: object, **named: object) -> tuple:
        y, state = forward(self, h, layout, *rest, **named)
        return (2 * y if torch.compiler.is_compiling() else y), state

    return faulty


def unmasked(forward: Callable) -> Callable:
    # What stands in padding comes back.
    def faulty(self: SequenceMixer, h: Tensor, layout: Layout, *rest: object, **named: object) -> tuple:
        y, state = forward(self, h, layout, *rest, **named)
        return torch.where(layout.valid[..., None], y, h), state

    return faulty


CAUSAL, FULL, RING = MaskSpec("causal"), MaskSpec("full"), MaskSpec("causal", 3, 2)
FAULTS: dict[str, tuple[str, MaskSpec, Callable, Patch]] = {
    "state_ignored": ("min_gru", CAUSAL, laws.check_chunks, wrapped(min_gru, "gated_scan", without_initial)),
    "positions_restart": (
        "attention",
        CAUSAL,
        laws.check_steps,
        wrapped(attention, "positions_of", lambda _: lambda layout, state: layout.positions),
    ),
    "reset_ignored": ("min_gru", CAUSAL, laws.check_packed, wrapped(min_gru, "gated_scan", without_reset)),
    "row_reversed": ("bidirectional", FULL, laws.check_packed, wrapped(bidirectional, "reversal", whole_row)),
    "padding_returned": ("min_gru", CAUSAL, laws.check_padding, wrapped(min_gru.MinGRU, "forward", unmasked)),
    "mask_ignored": ("attention", FULL, laws.check_visibility, wrapped(MaskSpec, "dense", everything)),
    "future_seen": (
        "attention",
        CAUSAL,
        laws.check_visibility,
        wrapped(attention, "attend", lambda attend: lambda q, k, v, mask, layout: attend(q, k, v, FULL, layout)),
    ),
    "sequences_touch": ("min_gru", CAUSAL, laws.check_visibility, wrapped(min_gru, "gated_scan", without_reset)),
    "order_matters": ("attention", FULL, laws.check_permutation, wrapped(attention, "attend", order_dependent)),
    "select_fixed": ("min_gru", CAUSAL, laws.check_state, wrapped(State, "select", first_row)),
    "state_mutated": ("attention", CAUSAL, laws.check_state, wrapped(SequenceMixer, "step", in_place)),
    "history_shifted": ("min_gru", CAUSAL, laws.check_rollback, wrapped(Recurrent, "truncate", shifted_truncate)),
    "keys_not_dropped": ("attention", CAUSAL, laws.check_rollback, wrapped(KeyValue, "truncate", any_truncate)),
    "ring_too_small": (
        "attention",
        RING,
        laws.check_rollback,
        wrapped(attention.Attention, "init_state", shorter_ring),
    ),
    "forgotten_made_up": ("attention", RING, laws.check_forgotten, wrapped(KeyValue, "truncate", any_truncate)),
    "ring_grows": (
        "attention",
        RING,
        laws.check_size,
        wrapped(attention.Attention, "_ring", lambda _: lambda self, *rest: grown(*rest)),
    ),
    "buffer_unsaved": (
        "attention",
        FULL,
        lambda mixer: laws.check_saved(mixer, lambda: build("attention", FULL)),
        wrapped(attention.Attention, "forward", unsaved),
    ),
    "compile_differs": ("attention", FULL, laws.check_compiled, wrapped(attention.Attention, "forward", uncompiled)),
    "blind_rows_not_zeroed": (
        "attention",
        FULL,
        laws.check_padding,
        wrapped(attend_module, "_dense", lambda dense: lambda q, k, v, mask, lse: dense(q, k, v, mask | True, lse)),
    ),
}


def grown(before: KeyValue, key: Tensor, value: Tensor, end: Tensor) -> KeyValue:
    return KeyValue(
        end,
        torch.cat([before.keys, key], 2),
        torch.cat([before.values, value], 2),
        torch.cat([before.places, before.position[:, None] + torch.arange(key.shape[2])], 1),
        before.oldest,
    )


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key, mask, law, patch = FAULTS[fault]
    torch.compiler.reset()
    mixer = build(key, mask)
    patch(monkeypatch)
    with pytest.raises(AssertionError):
        law(mixer)


def test_wrong_declarations_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = MEMBERS["min_gru"].capabilities
    for wrong in (replace(declared, state="growing"), replace(declared, state="none"), replace(declared, cost=2.0)):
        monkeypatch.setattr(MEMBERS["min_gru"], "capabilities", wrong)
        with pytest.raises((AssertionError, ValueError)):
            test_declaration("min_gru")
    monkeypatch.undo()
    with pytest.raises(AssertionError):
        laws.check_refusals(lambda mask: build("min_gru", MaskSpec("causal")), MASKS, declared.masks)

"""Planted faults in mixers, masks and states: one line each, and the law must fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.backbones.engines import dense
from core.backbones.mixers import attention, bidirectional, min_gru
from core.backbones.mixers.base import SequenceMixer
from core.backbones.state import KeyValue, Recurrent, State
from core.data import Layout, MaskSpec
from tests.laws import mixer_laws as laws
from tests.laws import test_mixers as suite

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


def uncut(torn: Callable) -> Callable:
    # Any width is taken as whole blocks.
    return lambda self, before, layout: torn(self, before, Layout.padded(layout.lengths, 0))


def untorn(torn: Callable) -> Callable:
    return lambda self, before, layout: torn(self, before, layout) & False


def blocks_from_the_state(allows: Callable) -> Callable:
    # Blocks are counted from the first key that is still held.
    def faulty(self: MaskSpec, query: Tensor, key: Tensor, same: Tensor, prefix: Tensor | None) -> Tensor:
        first = torch.where(key < 0, key.amax(-1, keepdim=True), key).amin(-1, keepdim=True)
        return allows(self, query - first, key - first, same, prefix)

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
BLOCKS, WINDOWED_BLOCKS = MaskSpec("causal", block=3), MaskSpec("causal", 6, block=3)
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
    "cut_inside_a_block": (
        "attention",
        BLOCKS,
        laws.check_blocks,
        wrapped(attention.Attention, "_torn", uncut),
    ),
    "on_inside_a_block": (
        "attention",
        BLOCKS,
        laws.check_blocks,
        wrapped(attention.Attention, "_torn", untorn),
    ),
    "blocks_counted_from_the_ring": (
        "attention",
        WINDOWED_BLOCKS,
        laws.check_blocks,
        wrapped(MaskSpec, "allows", blocks_from_the_state),
    ),
    "block_not_dropped": ("attention", BLOCKS, laws.check_blocks, wrapped(KeyValue, "truncate", any_truncate)),
    "buffer_unsaved": (
        "attention",
        FULL,
        lambda mixer: laws.check_saved(mixer, lambda: suite.build("attention", FULL)),
        wrapped(attention.Attention, "forward", unsaved),
    ),
    "compile_differs": ("attention", FULL, laws.check_compiled, wrapped(attention.Attention, "forward", uncompiled)),
    "blind_rows_not_zeroed": (
        "attention",
        FULL,
        laws.check_padding,
        wrapped(dense, "_sighted", lambda sighted: lambda mask: sighted(mask | True)),
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
    mixer = suite.build(key, mask)
    patch(monkeypatch)
    with pytest.raises(AssertionError):
        law(mixer)


def test_wrong_declarations_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = suite.MEMBERS["min_gru"].capabilities
    for wrong in (replace(declared, state="growing"), replace(declared, state="none"), replace(declared, cost=2.0)):
        monkeypatch.setattr(suite.MEMBERS["min_gru"], "capabilities", wrong)
        with pytest.raises((AssertionError, ValueError)):
            suite.test_declaration("min_gru")
    monkeypatch.undo()
    with pytest.raises(AssertionError):
        laws.check_refusals(lambda mask: suite.build("min_gru", MaskSpec("causal")), suite.MASKS, declared.masks)

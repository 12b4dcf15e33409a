"""The laws of fusions of memories, for every registered member; each with planted faults."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from core.backbones import block as block_module
from core.backbones.backbone import Backbone
from core.backbones.memories import _cross_attention, base, registry
from core.backbones.memories._build import build_fusions
from core.backbones.memories.base import Fusion
from core.backbones.network import BackboneNetwork
from core.backbones.source import Source
from core.backbones.state import Stack
from core.data import Layout, MaskSpec, Memory, SequenceBatch

CONFIGS = Path(__file__).parents[2] / "configs" / "fusion"
MEMBERS = registry.members()
WIDTH = 8
LENGTHS = torch.tensor([5, 0, 1, 7, 3])
ROOM = 8
BREADTHS = {"first": 4, "second": 8, "third": 5}


def build(key: str, names: tuple[str, ...] = ("first", "second"), rotary: bool = True) -> Fusion:
    """The member with the options of its YAML, every parameter random."""
    options = yaml.safe_load((CONFIGS / f"{key}.yaml").read_text())
    entry = {**options, "heads": 2, "rotary": rotary}
    fusion = build_fusions(entry, WIDTH, {name: BREADTHS[name] for name in names}, 1)[0]
    assert fusion is not None
    with torch.no_grad():
        for parameter in fusion.double().parameters():
            parameter.normal_(std=0.6)
    return fusion


def memory(name: str, lengths: list[int], room: int, owner: list[int]) -> Memory:
    sizes = torch.tensor(lengths, dtype=torch.long)
    rows = SequenceBatch(torch.zeros(len(lengths), room, dtype=torch.long), Layout.padded(sizes, room))
    return Memory(rows, torch.tensor(owner), torch.randn(len(lengths), room, BREADTHS[name], dtype=torch.float64))


def given() -> dict[str, Memory]:
    """Shared rows, rows of no tokens, and sequences that own no row."""
    return {
        "first": memory("first", [6, 1, 0, 3], 6, [0, 2, 1, 0, -1]),
        "second": memory("second", [3, 2], 3, [1, 0, -1, 0, 1]),
        "third": memory("third", [4], 4, [0, 0, 0, 0, 0]),
    }


def fused(fusion: Fusion, h: Tensor, memories: Mapping[str, Memory], layout: Layout | None = None) -> Tensor:
    layout = Layout.padded(LENGTHS, ROOM) if layout is None else layout
    return fusion(h, layout, layout.positions, fusion.project(memories, layout.count))


def tokens() -> Tensor:
    return torch.randn(len(LENGTHS), ROOM, WIDTH, dtype=torch.float64)


def near(one: Tensor, other: Tensor, what: str) -> None:
    gap = (one - other).abs().max().item()
    # `not <=` also catches NaN.
    assert one.shape == other.shape and not (not gap <= 1e-9), f"{what}: {gap:.2e}"


# --- the laws ---------------------------------------------------------------------------


def check_one_is_plain(key: str) -> None:
    """One memory: plain cross-attention, written down sequence by sequence."""
    fusion, h, source = build(key, ("first",), rotary=False), tokens(), given()["first"]
    (reader,) = fusion.readers.values()
    assert source.encoded is not None
    wanted = torch.zeros_like(h)
    for n, (length, owner) in enumerate(zip(LENGTHS.tolist(), source.owner.tolist(), strict=True)):
        room = int(source.batch.layout.lengths[owner]) if owner >= 0 else 0
        if length and room:
            rows = source.encoded[owner, :room]
            q, k, v = (
                linear(x).unflatten(-1, (2, -1)).transpose(0, 1)
                for linear, x in ((reader.query, h[n, :length]), (reader.key, rows), (reader.value, rows))
            )
            wanted[n, :length] = reader.out(scaled_dot_product_attention(q, k, v).transpose(0, 1).flatten(1))
    near(fused(fusion, h, {"first": source}), wanted, "one memory and plain cross-attention")


def check_empty_is_neutral(key: str) -> None:
    """A memory that holds nothing for a sequence leaves it as a fusion built without that memory would."""
    fusion, h, memories = build(key), tokens(), given()
    lone = build(key, ("first",))
    lone.load_state_dict({name: value for name, value in fusion.state_dict().items() if "second" not in name})
    wanted = fused(lone, h, memories)
    second = memories["second"]
    none = torch.full_like(second.owner, -1)
    for what, empty in {
        "owner -1": replace(second, owner=none),
        "rows without tokens": memory("second", [0, 0], 3, [0, 1, 1, 0, 0]),
        "rows without slots": memory("second", [0, 0], 0, [0, 1, 1, 0, 0]),
        "no rows": memory("second", [], 3, none.tolist()),
    }.items():
        near(fused(fusion, h, {**memories, "second": empty}), wanted, what)
    near(fused(fusion, h, {"first": memories["first"]}), wanted, "a memory that was not given")
    both = fused(fusion, h, memories)
    alone = torch.where(second.owner == -1)[0]
    near(both[alone], wanted[alone], "a sequence that owns no row beside others that do")
    assert not torch.isclose(both[0, :5], wanted[0, :5]).all(), "the second memory is not read"
    nothing = h.clone().requires_grad_()
    y = fused(fusion, nothing, {})
    near(y, torch.zeros_like(y), "no memory at all")
    y.sum().backward()
    assert nothing.grad is not None and nothing.grad.isfinite().all()


def check_order(key: str) -> None:
    """The order of the memories matters where the member says so, and only there."""
    names, h, memories = ("first", "second", "third"), tokens(), given()
    fusion, twin = build(key, names), build(key, names[::-1])
    twin.load_state_dict(fusion.state_dict())
    here, there = fused(fusion, h, memories), fused(twin, h, memories)
    if MEMBERS[key].ordered:
        assert not torch.isclose(here, there).all(), "declares an order, but does not heed it"
    else:
        near(here, there, "another order of the memories")
    near(here, fused(fusion, h, dict(reversed(memories.items()))), "another order in the batch")


def check_shared_rows(key: str) -> None:
    """Sequences that share a row read what each would read in a copy of its own."""
    fusion, h, memories = build(key), tokens(), given()
    copies = {}
    for name, shared in memories.items():
        assert shared.encoded is not None
        row = shared.owner.clamp_min(0)
        own = torch.where(shared.owner < 0, -1, torch.arange(len(row)))
        copies[name] = Memory(shared.batch.select(row), own, shared.encoded[row])
    near(fused(fusion, h, memories), fused(fusion, h, copies), "a shared row and copies of it")


def check_packed(key: str) -> None:
    """Packed = padded = alone; what stands in padding, of sequences and of memories, does not matter."""
    fusion, h, memories = build(key), tokens(), given()
    wide, tight = Layout.padded(LENGTHS, ROOM), Layout.packed(LENGTHS, int(LENGTHS.sum()) + 3)
    wanted = fused(fusion, h, memories)
    row = tight.owners[0].clamp_min(0), tight.offsets[0]
    found = fused(fusion, h[row][None], memories, tight)
    assert not found[~tight.valid].any(), "slack is not zero"
    near(found[0, tight.valid[0]], wanted[wide.valid], "packed and padded")
    for n, length in enumerate(LENGTHS.tolist()):
        mine = {name: replace(m, owner=m.owner[n : n + 1]) for name, m in memories.items()}
        alone = fused(fusion, h[n : n + 1, :length], mine, Layout.padded(LENGTHS[n : n + 1], length))
        near(alone.sum(1), wanted[n : n + 1].sum(1), "alone and in a batch")
    for garbage in (torch.nan, 1e30):
        dirty = h.masked_fill(~wide.valid[..., None], garbage)
        near(fused(fusion, dirty, memories), wanted, "padding of sequences")
    assert memories["first"].encoded is not None
    holes = ~memories["first"].batch.layout.valid[..., None]
    spoilt = replace(memories["first"], encoded=memories["first"].encoded.masked_fill(holes, 1e9))
    near(fused(fusion, h, {**memories, "first": spoilt}), wanted, "padding of memories")


def check_separate(key: str) -> None:
    """A sequence depends on itself and on the rows that it owns, and the gradient of the rest is exactly 0."""
    fusion, h, memories = build(key), tokens().requires_grad_(), given()
    rows = {name: m.encoded.requires_grad_() for name, m in memories.items() if m.encoded is not None}
    y = fused(fusion, h, memories)
    for n in range(len(LENGTHS)):
        wanted = [h, rows["first"], rows["second"]]
        grads = torch.autograd.grad(y[n].square().sum(), wanted, retain_graph=True, allow_unused=True)
        for part, grad, own in zip(
            wanted, grads, (n, *(memories[m].owner[n] for m in ("first", "second"))), strict=True
        ):
            grad = torch.zeros_like(part) if grad is None else grad
            others = torch.arange(len(part)) != own
            assert not grad[others].any(), f"sequence {n} depends on what is not its own"
    assert torch.autograd.grad(y[3].square().sum(), rows["first"])[0][0].any(), "a row that is owned has no gradient"


def check_positions(key: str) -> None:
    """With rotary positions a token reads a memory by how far apart they are, without by what they hold."""
    h, layout, memories = tokens(), Layout.padded(LENGTHS, ROOM), given()
    later = replace(layout, positions=layout.positions + 3)
    shifted = {
        name: replace(m, batch=replace(m.batch, layout=replace(m.batch.layout, positions=m.batch.layout.positions + 3)))
        for name, m in memories.items()
    }
    for rotary in (True, False):
        fusion = build(key, rotary=rotary)
        wanted = fused(fusion, h, memories, layout)
        near(fused(fusion, h, shifted, later), wanted, "both moved by as much")
        for one in (fused(fusion, h, memories, later), fused(fusion, h, shifted, layout)):
            assert torch.allclose(one, wanted) != rotary, f"rotary={rotary}, and one of both was moved"


PATTERN = [{"name": "attention", "heads": 2}]


def network(key: str, **options: Any) -> BackboneNetwork:
    """A decoder of three layers, two of which read two memories, and their encoders."""
    encoders = {name: Backbone(9, 0, BREADTHS[name], PATTERN, 1, MaskSpec("full")) for name in ("first", "second")}
    fusion = {"name": key, "heads": 2, "rotary": True, "layers": [0, 2], **options}
    sources = {name: BREADTHS[name] for name in encoders}
    backbone = Backbone(9, 7, WIDTH, PATTERN, 3, MaskSpec("causal"), fusion={**fusion, "sources": sources})
    made = BackboneNetwork(backbone, encoders=encoders).double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.4)
    return made


def question() -> SequenceBatch:
    memories = {name: replace(m, encoded=None) for name, m in given().items() if name != "third"}
    for m in memories.values():
        m.batch.tokens.random_(0, 9)
    return SequenceBatch(torch.randint(9, (5, 9)), Layout.padded(torch.full((5,), 9), 9), memories=memories)


def check_steps(key: str) -> None:
    """Read at once = read in part and then token by token; each memory is encoded once."""
    net, batch = network(key), question()
    with torch.no_grad():
        whole = net(batch, None)
    calls = []
    for encoder in net.encoders.values():
        encoder.norm.register_forward_hook(lambda *_: calls.append(1))
    layout = Layout.padded(torch.full((5,), 4), 4)
    logits, state = net.read(replace(batch, tokens=batch.tokens[:, :4], layout=layout))
    near(logits, whole[:, 3], "read and parallel")
    for place in range(4, 9):
        logits, state = net.step(batch.tokens[:, place], state)
        near(logits, whole[:, place], "step by step and parallel")
    assert len(calls) == 2, f"{len(calls)} encodings of two memories"
    start = net.backbone.init_state(5, net.encoded(batch).memories)
    near(net.step(batch.tokens[:, 0], start)[0], whole[:, 0], "from nothing and parallel")


def check_state_moves_the_owner(key: str) -> None:
    """select and fork take rows of the owner, never of the keys; truncation leaves memories alone."""
    net, batch = network(key), question()
    layout = Layout.padded(torch.full((5,), 4), 4)
    _, state = net.read(replace(batch, tokens=batch.tokens[:, :4], layout=layout))
    after, _ = net.step(batch.tokens[:, 4], state)
    order = torch.tensor([3, 0, 0, 4])
    near(net.step(batch.tokens[order, 4], state.select(order))[0], after[order], "selected rows")
    forked = state.fork(2)
    near(net.step(batch.tokens[:, 4].repeat_interleave(2), forked)[0], after.repeat_interleave(2, 0), "forked rows")
    back = net.step(batch.tokens[:, 4], state)[1].truncate(state.position)
    near(net.step(batch.tokens[:, 4], back)[0], after, "rolled back")
    for moved in (state.select(order), forked, back):
        pairs = list(zip(sources(state), sources(moved), strict=True))
        assert len(pairs) == 4
        for here, there in pairs:
            assert there.keys is here.keys and there.values is here.values and there.valid is here.valid
            assert torch.equal(there.position, moved.position)


def sources(state: Stack) -> list[Source]:
    nested = [layer for layer in state.layers if isinstance(layer, Stack)]
    return [part for layer in nested for part in layer.layers if isinstance(part, Source)]


LAWS = [
    check_one_is_plain,
    check_empty_is_neutral,
    check_order,
    check_shared_rows,
    check_packed,
    check_separate,
    check_positions,
    check_steps,
    check_state_moves_the_owner,
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("key", MEMBERS)
def test_law(key: str, law: Callable[[str], None]) -> None:
    law(key)


@pytest.mark.parametrize("key", MEMBERS)
def test_paper_is_named(key: str) -> None:
    assert MEMBERS[key].paper.title


# --- planted faults: one line each, and the law must fail ---------------------------------


def wrapped(owner: object, attribute: str, change: Callable) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(owner, attribute, change(getattr(owner, attribute)))


def reading_by_place(of: Callable) -> Callable:
    def faulty(memory: Memory | None, n: int, *rest: Any) -> Source:
        source = of(memory, n, *rest)
        return replace(source, owner=torch.where(source.owner < 0, -1, torch.arange(n) % len(source.keys)))

    return faulty


def leaking(attend: Callable) -> Callable:
    def faulty(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> tuple:
        return attend(query, key, value + 1e-3 * value.mean(), *rest, **named)

    return faulty


def first_doubled(pairs: Callable) -> Callable:
    def faulty(self: Fusion, given: tuple[Source, ...]) -> list:
        (reader, source), *rest = pairs(self, given)
        return [(reader, replace(source, values=2 * source.values)), *rest]

    return faulty


def by_room(pairs: Callable) -> Callable:
    return lambda self, given: sorted(pairs(self, given), key=lambda pair: pair[1].keys.shape[1])


def at_the_start(rotate: Callable) -> Callable:
    return lambda part, positions: rotate(part, positions * 0)


def copying(change_rows: Callable) -> Callable:
    def faulty(self: Source, change: Callable) -> Source:
        return replace(change_rows(self, change), keys=self.keys.clone())

    return faulty


SEES_ALL = property(lambda self: torch.ones_like(self.valid[self.owner.clamp_min(0)]))
FAULTS: dict[str, tuple[Callable[[str], None], Callable[[pytest.MonkeyPatch], None]]] = {
    "validity_ignored": (check_one_is_plain, lambda patch: patch.setattr(Source, "seen", SEES_ALL)),
    "absence_ignored": (
        check_empty_is_neutral,
        lambda patch: patch.setattr(Source, "seen", property(lambda self: self.valid[self.owner.clamp_min(0)])),
    ),
    "first_memory_doubled": (check_order, wrapped(Fusion, "_pairs", first_doubled)),
    "order_unheeded": (check_order, wrapped(Fusion, "_pairs", by_room)),
    "owner_ignored": (
        check_shared_rows,
        lambda patch: patch.setattr(Source, "of", staticmethod(reading_by_place(Source.of))),
    ),
    "rows_shifted": (check_packed, wrapped(base, "as_rows", lambda rows: lambda v, layout: rows(v, layout).roll(1, 1))),
    "memories_mixed": (check_separate, wrapped(_cross_attention, "attend", leaking)),
    "positions_unheeded": (check_positions, wrapped(_cross_attention, "rotate", at_the_start)),
    "positions_restart": (
        check_steps,
        wrapped(block_module, "positions_of", lambda _: lambda layout, state: layout.positions),
    ),
    "encoded_again": (
        check_steps,
        wrapped(
            BackboneNetwork, "step", lambda step: lambda self, t, s: (self.encoded(question()), step(self, t, s))[1]
        ),
    ),
    "keys_copied": (check_state_moves_the_owner, wrapped(Source, "_map", copying)),
}


# What a fault breaks, the member must have promised.
PLANTED = [
    (fault, key)
    for fault in FAULTS
    for key, member in MEMBERS.items()
    if fault != ("first_memory_doubled" if member.ordered else "order_unheeded")
]


@pytest.mark.parametrize(("fault", "key"), PLANTED)
def test_planted_fault_is_caught(fault: str, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law, patch = FAULTS[fault]
    patch(monkeypatch)
    with pytest.raises(AssertionError):
        law(key)

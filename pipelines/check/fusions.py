"""Laws of a fusion of memories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from core.backbones.memories.base import Fusion
from core.data.layout import Layout
from core.data.packing import pack, packed_layout, unpack
from core.data.sequence_batch import Memory, SequenceBatch
from core.errors import as_user_error
from pipelines.check._law import near, require
from pipelines.check._toys import randomise

_WIDTH = 8
_LENGTHS = torch.tensor([5, 0, 1, 7, 3])
_ROOM = 8
# Channels of each memory's rows.
_SOURCES = {"first": 4, "second": 8, "third": 5}


def laws(member: type[Fusion]) -> Iterator[str]:
    fusion, memories = _built(member, ("first", "second")), _given()
    layout = Layout.padded(_LENGTHS, _ROOM)
    h = torch.randn(5, _ROOM, _WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = _fused(fusion, h, memories, layout)
    yield require(y.shape == h.shape, "forward keeps the shape")
    yield require(not bool(y[~layout.valid].any()), "rows of padding come back as zeros")
    dirty = _fused(fusion, h.masked_fill(~layout.valid[..., None], torch.nan), memories, layout)
    yield require(near(y, dirty), "what stands in padding does not matter")
    yield require(near(_fused(fusion, h, _spoilt(memories), layout), y), "nor what stands in that of memories")
    dense = packed_layout(layout, int(_LENGTHS.sum()) + 2)
    together = _fused(fusion, pack(h, layout, dense.shape[1]), memories, dense)
    yield require(near(unpack(together, dense, _ROOM), y), "packed is padded")
    yield require(_stands_apart(fusion, h, memories, layout), "a sequence depends on itself and the rows that it owns")
    yield require(near(_fused(fusion, h, _copied(memories), layout), y), "rows that are shared are as copies of them")
    alone = _built(member, ("first",))
    ((reader, source),) = alone._pairs(alone.project(memories, 5))
    plain = reader.out(reader(h, layout.positions, source)[0]).masked_fill(~layout.valid[..., None], 0)
    yield require(near(_fused(alone, h, memories, layout), plain), "one memory is plain cross-attention")
    yield from _absent(fusion, alone, h, layout)
    yield from _ordered(member, h, layout)


def _absent(fusion: Fusion, alone: Fusion, h: Float[Tensor, "N L D"], layout: Layout) -> Iterator[str]:
    memories = _given()
    second, wanted = memories["second"], _fused(alone, h, memories, layout)
    none = torch.full_like(second.owner, -1)
    empty = [replace(second, owner=none), _memory("second", [0, 0], 3, [0, 1, 1, 0, 0]), _memory("second", [], 3, none)]
    found = [_fused(fusion, h, {**memories, "second": memory}, layout) for memory in empty]
    found.append(_fused(fusion, h, {"first": memories["first"]}, layout))
    yield require(all(near(one, wanted) for one in found), "an empty memory is as if built without it")
    nothing = _fused(fusion, h, {}, layout)
    yield require(not bool(nothing.any()), "no memory at all adds nothing")


def _ordered(member: type[Fusion], h: Float[Tensor, "N L D"], layout: Layout) -> Iterator[str]:
    names, memories = tuple(_SOURCES), _given()
    here, there = (_fused(_built(member, order), h, memories, layout) for order in (names, names[::-1]))
    yield require(near(here, there) != member.ordered, "the order of the memories matters just where `ordered` says so")


def _built(member: type[Fusion], names: Sequence[str]) -> Fusion:
    with as_user_error(member.__name__):
        fusion = member(_WIDTH, {name: _SOURCES[name] for name in names}, heads=2, rotary=True).double()
    randomise(fusion)
    return fusion


def _memory(name: str, lengths: Sequence[int], room: int, owner: Sequence[int] | Tensor) -> Memory:
    sizes = torch.tensor(lengths, dtype=torch.long)
    rows = SequenceBatch(torch.zeros(len(sizes), room, dtype=torch.long), Layout.padded(sizes, room))
    source = torch.Generator().manual_seed(2)
    encoded = torch.randn(len(sizes), room, _SOURCES[name], dtype=torch.float64, generator=source)
    return Memory(rows, torch.as_tensor(owner), encoded)


def _given() -> dict[str, Memory]:
    """Shared rows, rows without tokens, and sequences that own no row."""
    return {
        "first": _memory("first", [6, 1, 0, 3], 6, [0, 2, 1, 0, -1]),
        "second": _memory("second", [3, 2], 3, [1, 0, -1, 0, 1]),
        "third": _memory("third", [4], 4, [0, 0, 0, 0, 0]),
    }


def _fused(
    fusion: Fusion, h: Float[Tensor, "B L D"], memories: Mapping[str, Memory], layout: Layout
) -> Float[Tensor, "B L D"]:
    return fusion(h, layout, layout.positions, fusion.project(memories, layout.count))


def _spoilt(memories: Mapping[str, Memory]) -> dict[str, Memory]:
    """The memories with large numbers in their padding."""
    return {
        name: replace(m, encoded=_rows(m).masked_fill(~m.batch.layout.valid[..., None], 1e9))
        for name, m in memories.items()
    }


def _copied(memories: Mapping[str, Memory]) -> dict[str, Memory]:
    """The memories with a row of its own for every sequence."""
    copies = {}
    for name, shared in memories.items():
        row = shared.owner.clamp_min(0)
        own = torch.where(shared.owner < 0, -1, torch.arange(len(row)))
        copies[name] = Memory(shared.batch.select(row), own, _rows(shared)[row])
    return copies


def _rows(memory: Memory) -> Float[Tensor, "R S D"]:
    assert memory.encoded is not None
    return memory.encoded


def _stands_apart(fusion: Fusion, h: Float[Tensor, "N L D"], memories: Mapping[str, Memory], layout: Layout) -> bool:
    """No gradient from a sequence to another one, or to a row that it does not own."""
    inputs = {name: _rows(m).requires_grad_() for name, m in memories.items() if name in fusion.readers}
    h = h.clone().requires_grad_()
    y = _fused(fusion, h, memories, layout)
    for n in range(layout.count):
        parts = [h, *inputs.values()]
        gradients = torch.autograd.grad(y[n].square().sum(), parts, retain_graph=True, allow_unused=True)
        owned = [n, *(int(memories[name].owner[n]) for name in inputs)]
        for part, gradient, own in zip(parts, gradients, owned, strict=True):
            others = torch.arange(len(part)) != own
            if gradient is not None and bool(gradient[others].any()):
                return False
    return True

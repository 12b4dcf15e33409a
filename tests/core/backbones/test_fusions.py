"""What each fusion computes, against its definition on one sequence."""

import torch
from torch import Tensor

from core.backbones.memories._cross_attention import CrossAttention
from core.backbones.memories.base import Fusion
from core.backbones.memories.flat import Flat
from core.backbones.memories.hierarchical import Hierarchical
from core.backbones.memories.parallel import Parallel
from core.backbones.memories.serial import Serial
from core.data import Layout, Memory, SequenceBatch

WIDTH, HEADS, LENGTH = 8, 2, 5
ROOMS = {"long": 6, "short": 3}
ROWS = {name: torch.randn(1, room, WIDTH, dtype=torch.float64) for name, room in ROOMS.items()}
H = torch.randn(1, LENGTH, WIDTH, dtype=torch.float64)


def found(fusion: Fusion) -> Tensor:
    with torch.no_grad():
        for parameter in fusion.double().parameters():
            parameter.normal_(std=0.6)
    layout = Layout.padded(torch.tensor([LENGTH]), LENGTH)
    memories = {}
    for name, room in ROOMS.items():
        rows = SequenceBatch(torch.zeros(1, room, dtype=torch.long), Layout.padded(torch.tensor([room]), room))
        memories[name] = Memory(rows, torch.tensor([0]), ROWS[name])
    return fusion(H, layout, layout.positions, fusion.project(memories, 1))[0]


def readers(fusion: Fusion) -> dict[str, CrossAttention]:
    return dict(fusion._named_readers())


def heads(values: Tensor) -> Tensor:
    return values.unflatten(-1, (HEADS, -1)).transpose(0, 1)


def scores(reader: CrossAttention, h: Tensor, name: str) -> Tensor:
    return heads(reader.query(h)) @ heads(reader.key(ROWS[name][0])).transpose(1, 2) * (WIDTH // HEADS) ** -0.5


def read(reader: CrossAttention, weights: Tensor, name: str) -> Tensor:
    return (weights @ heads(reader.value(ROWS[name][0]))).transpose(0, 1).flatten(1)


def attended(reader: CrossAttention, h: Tensor, name: str) -> Tensor:
    return read(reader, scores(reader, h, name).softmax(-1), name)


def test_serial_asks_with_what_was_added() -> None:
    fusion = Serial(WIDTH, dict.fromkeys(ROOMS, WIDTH), HEADS)
    y, added = found(fusion), torch.zeros_like(H[0])
    for name, reader in readers(fusion).items():
        added = added + reader.out(attended(reader, H[0] + added, name))
    torch.testing.assert_close(y, added)


def test_parallel_is_a_sum() -> None:
    fusion = Parallel(WIDTH, dict.fromkeys(ROOMS, WIDTH), HEADS)
    y, parts = found(fusion), readers(fusion)
    wanted = [reader.out(attended(reader, H[0], name)) for name, reader in parts.items()]
    torch.testing.assert_close(y, wanted[0] + wanted[1])


def test_flat_is_one_softmax_over_all_slots() -> None:
    fusion = Flat(WIDTH, dict.fromkeys(ROOMS, WIDTH), HEADS)
    y, parts = found(fusion), readers(fusion)
    weights = torch.cat([scores(reader, H[0], name) for name, reader in parts.items()], -1).softmax(-1)
    shares = dict(zip(ROOMS, weights.split(list(ROOMS.values()), -1), strict=True))
    wanted = [reader.out(read(reader, shares[name], name)) for name, reader in parts.items()]
    torch.testing.assert_close(y, wanted[0] + wanted[1])


def test_hierarchical_attends_to_the_contexts() -> None:
    fusion = Hierarchical(WIDTH, dict.fromkeys(ROOMS, WIDTH), HEADS)
    y, parts = found(fusion), readers(fusion)
    contexts = {name: attended(reader, H[0], name) for name, reader in parts.items()}
    match = [(fusion.ask(H[0]) * fusion.offers[name](contexts[name])).sum(-1) * WIDTH**-0.5 for name in ROOMS]
    share = torch.stack(match, -1).softmax(-1)
    wanted = [parts[name].out(contexts[name]) * share[:, n, None] for n, name in enumerate(ROOMS)]
    torch.testing.assert_close(y, wanted[0] + wanted[1])

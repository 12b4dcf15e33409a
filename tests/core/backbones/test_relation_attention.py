"""Attention along edges: its definition written down, and the laws that edges must keep."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from core.backbones.mixers import relation_attention
from core.backbones.mixers.attention import Attention
from core.backbones.mixers.relation_attention import RelationAttention
from core.data import Layout, MaskSpec, Relations, pack, packed_layout, unpack

LENGTHS = torch.tensor([5, 0, 1, 7])
MASKS = [MaskSpec("full"), MaskSpec("causal"), MaskSpec("full", 3, 1)]
WIDTH, HEADS, TYPES = 8, 2, 3


def build(mask: MaskSpec = MASKS[0]) -> RelationAttention:
    mixer = RelationAttention(WIDTH, mask, TYPES, HEADS).double()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.normal_(std=0.6)
    return mixer


def edges(count: int = 40) -> Relations:
    """Random edges of the sequences with tokens; some pairs have several."""
    sequence = torch.tensor([0, 2, 3])[torch.randint(3, (count,))]
    ends = (torch.rand(count, 2) * LENGTHS[sequence][:, None]).long()
    return Relations(torch.cat([sequence[:, None], ends], 1), torch.randint(TYPES, (count,)))


def inputs(relations: Relations | None) -> tuple[Tensor, Layout]:
    layout = Layout.padded(LENGTHS, 8)
    h = torch.randn(4, 8, WIDTH, dtype=torch.float64)
    return h, layout if relations is None else layout.with_relations(relations)


def near(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def check_no_edges_is_plain(mask: MaskSpec) -> None:
    mixer, plain = build(mask), Attention(WIDTH, mask, HEADS).double()
    plain.load_state_dict({name: value for name, value in mixer.state_dict().items() if "edges" not in name})
    h, layout = inputs(None)
    wanted = plain(h, layout)[0]
    none = Relations(torch.zeros(0, 3, dtype=torch.long), torch.zeros(0, dtype=torch.long))
    for given in (layout, layout.with_relations(none)):
        near(mixer(h, given)[0], wanted)


def check_definition(mask: MaskSpec) -> None:
    """Keys and values of every pair, as the paper writes them."""
    mixer, relations = build(mask), edges()
    h, layout = inputs(relations)
    seen = mask.dense(layout)
    added = torch.zeros(2, 4, 8, 8, WIDTH // HEADS, dtype=torch.float64)
    for (n, i, j), kind in zip(relations.edges.tolist(), relations.types.tolist(), strict=True):
        added[0, n, i, j] += mixer.key_edges.weight[kind].detach()
        added[1, n, i, j] += mixer.value_edges.weight[kind].detach()
    mixer.rotary = False
    query, key, value = (
        linear(h).unflatten(-1, (HEADS, -1)).transpose(1, 2) for linear in (mixer.query, mixer.key, mixer.value)
    )
    scores = torch.einsum("nhie,nhije->nhij", query, key[:, :, None] + added[0][:, None]) * (WIDTH // HEADS) ** -0.5
    weights = scores.masked_fill(~seen[:, None], -torch.inf).softmax(-1).nan_to_num()
    mixed = torch.einsum("nhij,nhije->nhie", weights, value[:, :, None] + added[1][:, None])
    near(mixer(h, layout)[0], mixer.out(mixed.transpose(1, 2).flatten(2)))


def check_order_of_edges(mask: MaskSpec) -> None:
    mixer, relations = build(mask), edges()
    h, layout = inputs(relations)
    order = torch.randperm(len(relations.types))
    near(mixer(h, layout.with_relations(Relations(relations.edges[order], relations.types[order])))[0],
         mixer(h, layout)[0])  # fmt: skip


def check_packed(mask: MaskSpec) -> None:
    mixer, relations = build(mask), edges()
    h, layout = inputs(relations)
    wanted, tight = mixer(h, layout)[0], packed_layout(layout, 15)
    near(unpack(mixer(pack(h, layout, 15), tight)[0], tight, 8), wanted)
    for n in range(4):
        index = torch.tensor([n])
        near(mixer(h[index], layout.select(index))[0], wanted[index])


def check_separate(mask: MaskSpec) -> None:
    mixer = build(mask)
    h, layout = inputs(edges())
    h.requires_grad_()
    y = mixer(h, layout)[0]
    for n in range(4):
        (grad,) = torch.autograd.grad(y[n].square().sum(), h, retain_graph=True)
        assert not grad[torch.arange(4) != n].any()


LAWS = [check_no_edges_is_plain, check_definition, check_order_of_edges, check_packed, check_separate]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
@pytest.mark.parametrize("mask", MASKS, ids=lambda mask: "-".join(sorted(mask.features)))
def test_law(mask: MaskSpec, law: Callable[[MaskSpec], None]) -> None:
    law(mask)


def once_a_pair(relate: Callable) -> Callable:
    # The last edge between two tokens wins.
    def faulty(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, relations: Relations, tables: Any) -> Tensor:
        kept = {tuple(edge): index for index, edge in enumerate(relations.edges.tolist())}
        index = torch.tensor(list(kept.values()), dtype=torch.long)
        return relate(q, k, v, seen, Relations(relations.edges[index], relations.types[index]), tables)

    return faulty


def unmasked(relate: Callable) -> Callable:
    return lambda q, k, v, seen, relations, tables: relate(q, k, v, seen | True, relations, tables)


def first_row(relate: Callable) -> Callable:
    # Edges of every sequence are laid on the first.
    def faulty(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, relations: Relations, tables: Any) -> Tensor:
        place = relations.edges * torch.tensor([0, 1, 1])
        return relate(q, k, v, seen, Relations(place, relations.types), tables)

    return faulty


def mixed_rows(relate: Callable) -> Callable:
    return lambda q, k, v, *rest: relate(q, k, v + 1e-3 * v.mean(0), *rest)


@pytest.mark.parametrize(
    ("law", "fault"),
    [
        (check_no_edges_is_plain, unmasked),
        (check_definition, unmasked),
        (check_definition, once_a_pair),
        (check_order_of_edges, once_a_pair),
        (check_packed, first_row),
        (check_separate, mixed_rows),
    ],
    ids=lambda part: part.__name__,
)
def test_planted_fault_is_caught(law: Callable, fault: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relation_attention, "relate", fault(relation_attention.relate))
    with pytest.raises(AssertionError):
        law(MASKS[1] if fault is unmasked else MASKS[0])


def test_nothing_grows_with_pairs_times_channels() -> None:
    """The largest tensor on the way holds one number a head and pair."""
    mixer, length = build(), 64
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = function(*args, **(kwargs or {}))
            sizes.extend(
                part.numel() for part in (out if isinstance(out, tuple) else (out,)) if isinstance(part, Tensor)
            )
            return out

    ends = torch.stack([torch.zeros(9, dtype=torch.long), torch.arange(9), torch.arange(9) + 1], 1)
    layout = Layout.padded(torch.tensor([length]), length).with_relations(Relations(ends, torch.zeros_like(ends[:, 0])))
    h = torch.randn(1, length, WIDTH, dtype=torch.float64)
    with Watch():
        mixer(h, layout)
    assert max(sizes) == HEADS * length**2


def test_half_precision_is_near() -> None:
    mixer = build().float()
    h, layout = inputs(edges())
    h = h.float()
    with torch.autocast("cpu", torch.bfloat16):
        found = mixer(h, layout)[0]
    wanted = mixer(h, layout)[0]
    assert found.dtype == torch.bfloat16
    assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()


@pytest.mark.parametrize("options", [{"types": 0}, {"heads": 3}, {"heads": 0}, {"heads": 8}])
def test_options_that_fit_nothing_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        RelationAttention(WIDTH, MASKS[0], **options)

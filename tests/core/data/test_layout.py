"""Layouts and masks: padded and packed describe the same sequences, and every form of a mask agrees."""

from itertools import product

import pytest
import torch
from jaxtyping import TypeCheckError

from core.data import Layout, MaskSpec, pack, packed_layout, unpack
from core.data.sequence_batch import Memory, SequenceBatch

LENGTHS = [[3, 1, 5], [0, 4, 0, 2, 0], [1], [0], [6, 6]]
SPECS = [
    MaskSpec(mode, window, sinks)
    for mode, (window, sinks) in product(("causal", "full", "prefix"), ((None, 0), (1, 0), (3, 0), (2, 1), (2, 3)))
]
SPECS += [
    MaskSpec(mode, window, sinks, block)
    for mode, (window, sinks, block) in product(
        ("causal", "prefix"), ((None, 0, 1), (None, 0, 2), (3, 0, 3), (2, 1, 2))
    )
]


def padded(lengths: list[int], mask: MaskSpec = MaskSpec(), slack: int = 1) -> Layout:
    sizes = torch.tensor(lengths)
    return Layout.padded(sizes, max(lengths) + slack, mask).with_prefix(sizes.clamp_max(2))


@pytest.fixture(params=LENGTHS, ids=str)
def lengths(request: pytest.FixtureRequest) -> list[int]:
    return request.param


def test_padded_tables() -> None:
    layout = Layout.padded(torch.tensor([2, 0, 3]), 3)
    assert layout.owners.tolist() == [[0, 0, -1], [-1, -1, -1], [2, 2, 2]]
    assert layout.offsets.tolist() == [[0, 1, 0], [0, 0, 0], [0, 1, 2]]
    assert (layout.count, layout.shape, layout.is_packed) == (3, (3, 3), False)
    assert [column.tolist() for column in layout.last()] == [[0, 1, 2], [1, -1, 2]]


def test_packed_tables() -> None:
    layout = Layout.packed(torch.tensor([2, 0, 3]), 7)
    assert layout.owners.tolist() == [[0, 0, 2, 2, 2, -1, -1]]
    assert layout.offsets.tolist() == [[0, 1, 0, 1, 2, 0, 0]]
    assert layout.cu_seqlens is not None and layout.cu_seqlens.tolist() == [0, 2, 2, 5]
    assert layout.cu_seqlens.dtype == torch.int32
    assert layout.positions[..., 0].equal(layout.offsets)
    assert [column.tolist() for column in layout.last()] == [[0, 0, 0], [1, -1, 4]]


def test_pack_and_unpack_are_inverse(lengths: list[int]) -> None:
    layout = padded(lengths)
    values = torch.randn(*layout.shape, 2) * layout.valid[..., None]
    for width in (None, sum(lengths) + 3):
        twin = packed_layout(layout, width)
        flat = pack(values, layout, width)
        assert flat.shape[1] == twin.shape[1] == (width or sum(lengths))
        assert unpack(flat, twin, layout.shape[1]).equal(values)
    hollow = unpack(flat, twin, layout.shape[1], fill=-7)
    assert (hollow[~layout.valid] == -7).all()


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_packed_mask_is_the_padded_mask_of_each_sequence(spec: MaskSpec, lengths: list[int]) -> None:
    layout = padded(lengths, spec)
    alone = spec.dense(layout)
    twin = packed_layout(layout, sum(lengths) + 2)
    together = spec.dense(twin)[0]
    expected = torch.zeros_like(together)
    start = 0
    for number, length in enumerate(lengths):
        expected[start : start + length, start : start + length] = alone[number, :length, :length]
        start += length
    assert together.equal(expected)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_dense_against_the_definition(spec: MaskSpec, lengths: list[int]) -> None:
    layout = padded(lengths, spec)
    dense = spec.dense(layout)
    for row, query, key in product(*map(range, dense.shape)):
        length, prefix = lengths[row], min(lengths[row], 2)
        seen = query < length and key < length
        if spec.mode != "full":
            block = spec.block or 1
            seen &= key // block <= query // block or (spec.mode == "prefix" and key < prefix)
        if spec.window is not None:
            seen &= abs(query - key) < spec.window or key < spec.sinks
        assert bool(dense[row, query, key]) is seen, (row, query, key)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_mask_mod_equals_dense(spec: MaskSpec, lengths: list[int]) -> None:
    for layout in (padded(lengths, spec), packed_layout(padded(lengths, spec), sum(lengths) + 2)):
        rule = spec.mask_mod(layout)
        rows, width = layout.shape
        grid = [torch.arange(size) for size in (rows, width, width)]
        row, query, key = torch.meshgrid(*grid, indexing="ij")
        assert rule(row, torch.zeros_like(row), query, key).equal(spec.dense(layout))


@pytest.mark.parametrize("mode", ["causal", "full"])
def test_resets_carry_exactly_what_the_mask_shows(mode: str, lengths: list[int]) -> None:
    """A running sum that forgets at resets reaches exactly the keys that a dense mask shows."""
    spec = MaskSpec(mode)  # type: ignore[arg-type]
    for layout in (padded(lengths, spec), packed_layout(padded(lengths, spec), sum(lengths) + 2)):
        rows, width = layout.shape
        reach = torch.zeros(rows, width, width, dtype=torch.bool)
        for reverse in (False, True) if mode == "full" else (False,):
            resets = spec.resets(layout, reverse)
            for row in range(rows):
                carried: set[int] = set()
                for place in reversed(range(width)) if reverse else range(width):
                    carried = {place} if resets[row, place] else carried | {place}
                    reach[row, place, list(carried)] = True
        valid = layout.valid
        shown = spec.dense(layout)
        assert reach[valid].logical_and(valid.repeat_interleave(valid.sum(1), 0)).equal(shown[valid])


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.features - {"causal", "full"}], ids=str)
def test_resets_refuse_what_no_recurrence_can(spec: MaskSpec) -> None:
    with pytest.raises(ValueError, match="cannot honour"):
        spec.resets(padded([2], spec))


def test_resets_refuse_a_causal_reverse_pass() -> None:
    with pytest.raises(ValueError, match="no reverse pass"):
        MaskSpec("causal").resets(padded([2]), reverse=True)


def test_specs_refuse_nonsense() -> None:
    with pytest.raises((ValueError, TypeCheckError), match="diagonal"):
        MaskSpec("diagonal")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least the query"):
        MaskSpec(window=0)
    with pytest.raises(ValueError, match="beside a window"):
        MaskSpec(sinks=1)
    with pytest.raises(ValueError, match="at least one token"):
        MaskSpec("causal", block=0)
    with pytest.raises(ValueError, match="full mask shows every block"):
        MaskSpec("full", block=2)
    with pytest.raises(ValueError, match="own block of 4"):
        MaskSpec("causal", 3, block=4)
    with pytest.raises(ValueError, match=r"needs Layout\.prefix"):
        MaskSpec("prefix").dense(Layout.padded(torch.tensor([1]), 1))


def test_features_name_what_a_mixer_must_honour() -> None:
    assert MaskSpec().features == {"full"}
    assert MaskSpec("causal", 4, 2).features == {"causal", "window", "sinks"}
    assert MaskSpec("prefix", block=2).features == {"prefix", "block"}


def test_masked_shares_the_tables() -> None:
    layout = padded([2, 3])
    other = layout.masked(MaskSpec("causal"))
    assert other.mask.mode == "causal" and other.owners is layout.owners
    assert layout.masked(MaskSpec()) is layout


def test_a_block_is_seen_by_all_of_its_tokens() -> None:
    layout = Layout.padded(torch.tensor([5, 2]), 5, MaskSpec("causal", block=2))
    assert layout.mask.dense(layout)[0].int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]


def test_layers_share_what_a_layout_has_made() -> None:
    layout, made = padded([2, 3]), []

    def make() -> Layout:
        made.append(padded([1]))
        return made[-1]

    assert layout.once("a", make) is layout.once("a", make) is made[0]
    assert layout.once("b", make) is made[1]
    with torch.inference_mode():
        assert layout.once("a", make) is made[2]
    assert len(made) == 3 and not layout.to("cpu").derived and not layout.masked(MaskSpec("causal")).derived


def test_select_and_fork_of_a_batch() -> None:
    layout = padded([2, 0, 3])
    tokens = torch.arange(12).view(3, 4)
    source = SequenceBatch(tokens, layout)
    memory = Memory(source, torch.tensor([0, -1, 1]))
    batch = SequenceBatch(tokens, layout, weights=torch.rand(3, 4), condition=torch.rand(3, 2), memories={"m": memory})
    chosen = batch.select(torch.tensor([2, 0, 2]))
    assert chosen.tokens.equal(tokens[[2, 0, 2]]) and chosen.layout.lengths.tolist() == [3, 2, 3]
    assert chosen.layout.prefix is not None and chosen.layout.prefix.tolist() == [2, 2, 2]
    assert chosen.layout.owners[0, :3].tolist() == [0, 0, 0]
    assert chosen.memories["m"].owner.tolist() == [1, 0, 1] and chosen.memories["m"].batch is source
    assert batch.weights is not None and chosen.weights is not None
    assert chosen.weights.equal(batch.weights[[2, 0, 2]])
    assert chosen.targets is None
    forked = batch.fork(2)
    assert forked.layout.lengths.tolist() == [2, 2, 0, 0, 3, 3]
    assert forked.condition is not None and batch.condition is not None
    assert forked.condition.equal(batch.condition.repeat_interleave(2, 0))


def test_select_refuses_packed() -> None:
    with pytest.raises(ValueError, match="unpack first"):
        Layout.packed(torch.tensor([1]), 1).select(torch.tensor([0]))


@pytest.mark.parametrize("kind", ["padded", "packed"])
def test_longest_is_known_without_the_device(kind: str) -> None:
    make = Layout.padded if kind == "padded" else Layout.packed
    assert make(torch.tensor([2, 0, 5]), 9).longest == (9 if kind == "padded" else 5)
    assert make(torch.tensor([], dtype=torch.long), 0).longest == 0


def test_a_layout_moves_whole() -> None:
    layout = Layout.packed(torch.tensor([2, 1]), 4, MaskSpec("prefix")).with_prefix(torch.tensor([1, 0]))
    moved = layout.to("meta")
    tensors = (moved.lengths, moved.cu_seqlens, moved.owners, moved.offsets, moved.positions, moved.prefix)
    assert all(part is not None and part.is_meta for part in tensors)
    assert (moved.mask, moved.longest) == (layout.mask, 2)
    bare = Layout.padded(torch.tensor([2]), 3).to("meta")
    assert bare.cu_seqlens is None and bare.prefix is None

"""Edges go where their sequences go."""

import pytest
import torch

from core.data import Layout, Relations, packed_layout

EDGES = Relations(torch.tensor([[0, 0, 1], [2, 3, 0], [2, 1, 1], [0, 1, 0]]), torch.tensor([4, 5, 6, 7]))


def build() -> Layout:
    return Layout.padded(torch.tensor([2, 0, 4]), 5).with_relations(EDGES)


def test_edges_follow_the_sequences_selected() -> None:
    found = build().select(torch.tensor([2, 1, 0, 2])).relations
    assert found is not None
    listed = sorted(zip(found.edges.tolist(), found.types.tolist(), strict=True))
    assert listed == [
        ([0, 1, 1], 6),
        ([0, 3, 0], 5),
        ([2, 0, 1], 4),
        ([2, 1, 0], 7),
        ([3, 1, 1], 6),
        ([3, 3, 0], 5),
    ]


def test_packing_masks_and_moves_keep_the_edges() -> None:
    layout = build()
    assert packed_layout(layout).relations is EDGES
    moved = layout.to("cpu").relations
    assert moved is not None and torch.equal(moved.edges, EDGES.edges) and torch.equal(moved.types, EDGES.types)


@pytest.mark.parametrize("edge", [[0, 0, 2], [0, -1, 0], [1, 0, 0], [3, 0, 0], [-1, 0, 0]])
def test_edges_that_leave_their_sequence_are_refused(edge: list[int]) -> None:
    layout = Layout.padded(torch.tensor([2, 0, 4]), 5)
    with pytest.raises(ValueError, match=r"edge 1 .* leaves its sequence"):
        layout.with_relations(Relations(torch.tensor([[0, 0, 1], edge]), torch.tensor([0, 0])))

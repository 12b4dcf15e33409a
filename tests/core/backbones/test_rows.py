"""Packed tokens as rows: there and back, with sequences and rows of no tokens."""

import pytest
import torch

from core.backbones.engines.rows import as_packed, as_rows
from core.data import Layout


@pytest.mark.parametrize(
    ("lengths", "slack"), [([3, 0, 1], 0), ([3, 0, 1], 2), ([], 0), ([], 2), ([0, 0], 0), ([0], 3)], ids=str
)
def test_rows_come_back_packed(lengths: list[int], slack: int) -> None:
    sizes = torch.tensor(lengths, dtype=torch.long)
    layout = Layout.packed(sizes, sum(lengths) + slack)
    values = torch.arange(float(2 * layout.shape[1])).reshape(1, -1, 2)
    rows = as_rows(values, layout)
    assert rows.shape == (len(lengths), max(lengths, default=0), 2)
    for n, length in enumerate(lengths):
        first = sum(lengths[:n])
        assert torch.equal(rows[n, :length], values[0, first : first + length])
    back = as_packed(rows, layout)
    assert back.shape == values.shape and torch.equal(back[layout.valid], values[layout.valid])

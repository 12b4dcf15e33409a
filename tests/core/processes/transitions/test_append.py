"""Borders of appending under constraints."""

from __future__ import annotations

import torch

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.processes.transitions.append import Append
from tests.laws.toy_kinds import accepts, constraints


def test_no_sequences_move_nowhere() -> None:
    rules = constraints("length:2..4")
    empty = SequenceBatch(torch.zeros(0, 2, dtype=torch.long), Layout.padded(torch.arange(0), 2))
    move = Append(torch.zeros(0, 4)).draw(empty, Noise.start(0, torch.arange(0)), rules, rules.start(0))
    assert move.batch.layout.count == len(move.done) == 0


def test_prompts_of_several_lengths_are_all_read() -> None:
    """A row that is full may only end; the others may not end before they hold a C."""
    rules = constraints("length:2..3", "contains:C")
    rows = torch.tensor([[0, 2, 1], [1, 0, 5], [2, 5, 5], [5, 5, 5]])
    batch = SequenceBatch(rows, Layout.padded(torch.tensor([3, 2, 1, 0]), 3))
    for seed in range(40):
        move = Append(torch.zeros(4, 4)).draw(batch, Noise.start(seed, torch.arange(4)), rules, rules.start(4))
        held = [row[:n] for row, n in zip(move.batch.tokens.tolist(), move.batch.layout.lengths.tolist(), strict=True)]
        assert move.done.tolist() == [True, False, False, False]
        assert held[0] == [0, 2, 1] and held[1] == [1, 0, 2] and held[2][0] == 2 and len(held[2]) == 2
        assert accepts(rules, held[0]) and accepts(rules, held[1])


def test_rows_that_have_read_more_wait_for_the_others() -> None:
    rules = constraints("length:2..3", "contains:C-A")
    batch = SequenceBatch(torch.tensor([[0, 2], [1, 2]]), Layout.padded(torch.tensor([2, 2]), 2))
    end = rules.size
    running = rules.start(2)
    for token in (0, 2):
        running = rules.advance(running, torch.tensor([token, end]))
    move = Append(torch.zeros(2, 4)).draw(batch, Noise.start(0, torch.arange(2)), rules, running)
    assert move.batch.tokens.tolist() == [[0, 2, 0], [1, 2, 0]] and move.running.position.tolist() == [3, 3]

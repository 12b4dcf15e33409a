"""The walk through a set of constraints, as a state."""

from __future__ import annotations

import pytest
import torch

from core.guidance.constraint_state import ConstraintState


def state() -> ConstraintState:
    """Two sequences after 2 and 0 tokens, one possible length, states numbered by row and place."""
    return ConstraintState(torch.tensor([2, 0]), torch.arange(6).reshape(2, 3, 1))


def test_the_value_is_the_present_one() -> None:
    assert state().value.tolist() == [[2], [3]]


def test_rolling_back_shows_earlier_values() -> None:
    assert state().truncate(torch.tensor([1, 0])).value.tolist() == [[1], [3]]
    assert state().truncate(torch.tensor([2, 0])).value.tolist() == state().value.tolist()


@pytest.mark.parametrize("length", [[3, 0], [2, 1], [-1, 0]])
def test_a_length_that_was_not_there_is_refused(length: list[int]) -> None:
    with pytest.raises(ValueError, match="rolled back"):
        state().truncate(torch.tensor(length))


def test_rows_are_taken_together() -> None:
    chosen = state().select(torch.tensor([1, 0, 0]))
    assert chosen.value.tolist() == [[3], [2], [2]]
    assert state().fork(2).value.tolist() == [[2], [2], [3], [3]]

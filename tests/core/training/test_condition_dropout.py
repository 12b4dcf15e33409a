"""Hiding conditions in training: a share, by the noise of each sequence, and never in validation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from core.data.conditions import Column, Conditions
from core.data.noise import Noise
from core.errors import UserError
from core.training.condition_dropout import ConditionDropout
from tests.laws.toys import batch_of

DESCRIPTION = Conditions((Column("kind", ("a", "b")),))


def test_a_row_is_hidden_whole_and_the_same_alone_or_in_a_batch() -> None:
    condition = DESCRIPTION.encode(np.array([[0.0], [1.0]] * 50))
    batch = replace(batch_of(torch.zeros(100, 2, dtype=torch.long)), condition=condition)
    noise = Noise.start(0, torch.arange(100))
    drop = ConditionDropout(DESCRIPTION, 0.3)
    found = drop(batch, noise).condition
    assert found is not None
    hidden = found.isnan().all(1)
    assert torch.equal(hidden, found.isnan().any(1)) and 10 < hidden.sum() < 50
    assert torch.equal(found[~hidden], condition[~hidden])
    rows = torch.tensor([7, 3, 90])
    alone = drop(batch.select(rows), noise.select(rows)).condition
    assert alone is not None and torch.equal(alone.nan_to_num(-1), found[rows].nan_to_num(-1))


def test_batches_without_a_condition_stay_so() -> None:
    batch = batch_of(torch.zeros(2, 2, dtype=torch.long))
    assert ConditionDropout(DESCRIPTION, 1.0)(batch, Noise.start(0, torch.arange(2))) is batch


@pytest.mark.parametrize("share", [-0.1, 1.1, True, float("nan")])
def test_a_share_lies_between_0_and_1(share: float) -> None:
    with pytest.raises(UserError, match="condition_dropout"):
        ConditionDropout(DESCRIPTION, share)

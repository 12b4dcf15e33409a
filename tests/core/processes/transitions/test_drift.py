"""The ends of the noise that moves numbers."""

from __future__ import annotations

import math
from contextlib import nullcontext

import pytest
import torch

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.processes.transitions.drift import Drift


@pytest.mark.parametrize("velocity", [math.nan, math.inf])
def test_a_step_to_nowhere_is_an_error(velocity: float) -> None:
    """Of a place; what stands in padding does not matter."""
    batch = SequenceBatch(torch.zeros(1, 2, 1).double(), Layout.padded(torch.tensor([1]), 2))
    for row, fails in (([velocity, 0.0], True), ([0.0, velocity], False)):
        step = Drift(torch.tensor(row).double()[None, :, None], 0.0, 0.5)
        with pytest.raises(RuntimeError, match="is not finite") if fails else nullcontext():
            step.draw(batch, Noise.start(0, torch.arange(1)), None, None)


@pytest.mark.parametrize("number,middle", [(0.0, 2.0**-54), (0.5, 0.5), (1 - 2.0**-53, 1 - 2.0**-53)])
def test_normals_stand_in_the_middle_of_their_cells(
    number: float, middle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = torch.tensor(number, dtype=torch.float64)
    monkeypatch.setattr(Noise, "uniform", lambda self, sites, *a: same.expand(len(self.sequences), sites))
    batch = SequenceBatch(torch.zeros(1, 1, 1, dtype=torch.float64), Layout.padded(torch.tensor([1]), 1))
    found = Drift(torch.zeros_like(batch.tokens), 0.0, 0.5, scale=1.0).candidates(
        batch, Noise.start(0, torch.arange(1))
    )
    assert float(found) == pytest.approx(
        float(torch.special.ndtri(torch.tensor(middle, dtype=torch.float64))), rel=1e-14
    )

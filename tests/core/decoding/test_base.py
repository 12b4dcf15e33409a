"""What a truncation refuses, and what it keeps at its borders."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.decoding.base import Truncation


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperatures_are_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        Truncation(temperature=temperature)


@pytest.mark.parametrize(
    "options", [{"top_p": 0.0}, {"top_p": 1.5}, {"min_p": -0.1}, {"min_p": 1.0}, {"min_p": 1.5}, {"top_k": 0}]
)
def test_each_part_outside_its_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="top_p lies in"):
        Truncation(**options)


def kept(logits: torch.Tensor, **options: Any) -> list[list[int]]:
    weights = Truncation(**options).log_weights(logits)
    assert not bool(weights.isnan().any())
    return [row.nonzero()[:, 0].tolist() for row in (logits + weights).isfinite()]


def test_borders_are_legal() -> None:
    law = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], dtype=torch.float64).log()
    assert kept(law, top_k=1) == [[0], [2]]
    for options in ({"top_k": 3}, {"top_k": 9}, {"top_p": 1.0}, {"min_p": 0.0}, {"temperature": 0.01}):
        assert kept(law, **options) == [[0, 1, 2]] * 2


def test_ties_are_kept_and_the_impossible_stays_so() -> None:
    law = torch.tensor([[0.4, 0.3, 0.3, 0.0]], dtype=torch.float64).log()
    assert kept(law, top_p=0.5) == [[0, 1, 2]]
    assert kept(law, top_k=2) == [[0, 1, 2]]
    assert kept(law) == kept(law, temperature=2.0) == [[0, 1, 2]]


def test_parts_act_together_on_the_tempered_law() -> None:
    """At temperature 1/2 the law is .658, .237, .105."""
    law = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log()
    assert kept(law, temperature=0.5, top_p=0.65) == [[0]]
    assert kept(law, temperature=0.5, min_p=0.3) == [[0, 1]]
    assert kept(law, temperature=0.5, min_p=0.3, top_k=1) == [[0]]

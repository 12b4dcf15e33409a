"""Projections onto several rules at once, against an independent solver."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from core.errors import UserError
from core.guidance.constraint_set import ConstraintSet
from core.guidance.constraints import _nearest
from core.guidance.constraints._nearest import nearest
from tests.laws.test_constraints import built
from tests.laws.toy_kinds import TOKENIZER, constraints
from tests.laws.toy_projections import Ball, Box, Mean

TWO = ConstraintSet([Box(0.0, 1.0), Mean(0.4)], None, range(1, 7))


def halfspace(normal: torch.Tensor, bound: float) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """The projection onto normal . x <= bound."""
    unit = normal / normal.norm()

    def step(points: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        excess = ((points.flatten(1) @ unit) - bound / normal.norm()).clamp_min(0)
        return points - (excess[:, None] * unit).reshape(points.shape)

    return step


def projections_are_the_nearest_points(size: int = 4, sets: int = 5, rows: int = 6) -> None:
    """Random polytopes around the origin, against a quadratic programme."""
    generator = torch.Generator().manual_seed(1)
    normals = torch.randn(sets, size, dtype=torch.double, generator=generator)
    bounds = 0.1 + torch.rand(sets, dtype=torch.double, generator=generator)
    points = 3 * torch.randn(rows, size, dtype=torch.double, generator=generator)
    steps = [halfspace(normal, float(bound)) for normal, bound in zip(normals, bounds, strict=True)]
    found, lost = nearest(steps, points[..., None])
    assert not len(lost)
    for point, answer in zip(points.numpy(), found[..., 0].numpy(), strict=True):
        rule = {"type": "ineq", "fun": lambda x: bounds.numpy() - normals.numpy() @ x}
        wanted = minimize(
            lambda x, p=point: ((x - p) ** 2).sum(), np.zeros(size), constraints=[rule], options={"ftol": 1e-14}
        )
        assert (normals.numpy() @ answer <= bounds.numpy() + 1e-7).all()
        assert np.abs(wanted.x - answer).max() < 1e-5


def rests_do_not_end_the_search() -> None:
    """On a square cut along a diagonal: whole cycles end at the origin, which breaks no rule,
    before the search moves on to the corner that is nearest."""
    cut = halfspace(torch.tensor([-1.0, -1.0]).double(), 0.0)
    square = lambda points, rows: points.clamp(-1.0, 1.0)  # noqa: E731
    found, lost = nearest([square, cut], torch.tensor([[[-9.0], [-3.0]]]).double())
    assert not len(lost) and torch.allclose(found[0, :, 0], torch.tensor([-1.0, 1.0]).double(), atol=1e-7)


def test_projections_are_the_nearest_points() -> None:
    projections_are_the_nearest_points()


def test_rests_do_not_end_the_search() -> None:
    rests_do_not_end_the_search()


def test_box_and_mean_are_a_clipped_shift() -> None:
    """The known form: every number moves by one amount, then is clipped."""
    point = torch.randn(3, 4, 2, dtype=torch.double)
    found = TWO.project(point, torch.tensor([4, 4, 4]))
    for before, after in zip(point, found, strict=True):
        inside = (after > 1e-6) & (after < 1 - 1e-6)
        shift = (after - before)[inside]
        assert len(shift) and float(shift.max() - shift.min()) < 1e-7
        assert torch.allclose(after, (before + shift[0]).clamp(0, 1), atol=1e-7)
        assert all(rule.check(after) for rule in TWO.constraints)


def test_rows_do_not_depend_on_their_neighbours() -> None:
    point = torch.randn(6, 5, 2, dtype=torch.double) * torch.tensor([1, 10, 100, 1, 10, 100])[:, None, None]
    lengths = torch.tensor([5, 3, 5, 1, 0, 4])
    together = TWO.project(point, lengths)
    for n in range(6):
        length = int(lengths[n])
        if length:
            assert torch.equal(TWO.project(point[n : n + 1, :length], lengths[n : n + 1])[0], together[n, :length])
        assert torch.equal(together[n, length:], point[n, length:])


def test_what_is_fixed_stays_and_the_rest_gives_way() -> None:
    point = torch.randn(1, 3, 2, dtype=torch.double)
    point[0, 0, 0] = 0.9
    fixed = torch.zeros(1, 3, 2, dtype=torch.bool)
    fixed[0, 0, 0] = True
    found = TWO.project(point, torch.tensor([3]), fixed)
    assert found[0, 0, 0] == 0.9
    assert all(rule.check(found[0]) for rule in TWO.constraints)


def test_rules_that_no_numbers_obey_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_nearest, "_CYCLES", 200)
    rules = ConstraintSet([Ball(0.5), Mean(2.0)], None, [2])
    point = torch.zeros(1, 2, 1, dtype=torch.double)
    with pytest.raises(UserError, match="ball:0.5 and mean:2: no numbers obey them together; loosen"):
        rules.project(point, torch.tensor([2]))
    with pytest.raises(UserError, match="beside what is fixed"):
        TWO.project(point + 9, torch.tensor([2]), torch.ones(1, 2, 1, dtype=torch.bool))


def test_numbers_and_tokens_do_not_mix() -> None:
    with pytest.raises(UserError, match="reads tokens, but this task writes numbers"):
        ConstraintSet(built(["forbid:AB"]), None, [3])
    with pytest.raises(UserError, match="box:0..1 reads numbers, but this task writes tokens"):
        ConstraintSet([Box(0.0, 1.0)], TOKENIZER, [3])
    with pytest.raises(ValueError, match="without a tokenizer"):
        constraints("forbid:AB").project(torch.zeros(1, 2, 1), torch.tensor([2]))
    assert TWO.feasible_lengths == (1, 2, 3, 4, 5, 6)


def alternating(steps: Sequence[Any], point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain alternating projections: a point of the intersection, not the nearest."""
    rows = torch.arange(len(point))
    for _ in range(1000):
        for step in steps:
            point = step(point, rows)
    return point, rows[:0]


def resting(steps: Sequence[Any], point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The search that ends once a whole cycle moves nothing and breaks no rule."""
    rows = torch.arange(len(point))
    corrections = [torch.zeros_like(point) for _ in steps]
    for _ in range(10_000):
        before = point
        for n, step in enumerate(steps):
            shifted = point + corrections[n]
            point = step(shifted, rows)
            corrections[n] = shifted - point
        moved = max(float((step(point, rows) - point).abs().max()) for step in steps)
        if max(moved, float((point - before).abs().max())) < 1e-9:
            break
    return point, rows[:0]


@pytest.mark.parametrize(
    ("fault", "law"),
    [(alternating, projections_are_the_nearest_points), (resting, rests_do_not_end_the_search)],
)
def test_planted_faults_are_caught(fault: Callable, law: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "nearest", fault)
    with pytest.raises(AssertionError):
        law()

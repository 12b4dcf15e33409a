"""Which rows a step asks the network for, and how it completes sequences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.stats import chisquare

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.processes.transitions.substitute import Substitute
from tests.laws.toys import batch_of


def test_rows_that_cannot_move_are_never_asked_for() -> None:
    asked: list[list[int]] = []

    def posterior(rows: torch.Tensor) -> torch.Tensor:
        asked.append(rows.tolist())
        return torch.zeros(len(rows), 2, 3, dtype=torch.float64)

    batch, noise = batch_of(torch.tensor([[0, 1], [2, 2], [1, 0]])), Noise.start(0, torch.arange(3))
    jump = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    settled = torch.where(jump > 0, -1, batch.tokens)
    for step in (
        Substitute(posterior, jump, settled),
        Substitute(posterior, jump, settled).tilted(torch.ones(3, 2, 3)),
    ):
        move = step.draw(batch, noise, None, None)
        assert torch.equal(move.batch.tokens[[0, 2]], batch.tokens[[0, 2]])
    assert asked == [[1], [1]]
    still = Substitute(posterior, 0 * jump, batch.tokens)
    for step in (still, still.tilted(torch.ones(3, 2, 3))):
        move = step.draw(batch, noise, None, None)
        assert torch.equal(move.batch.tokens, batch.tokens)
    assert asked == [[1], [1]]


def counting(asked: list[list[int]], size: int = 3) -> Callable[[torch.Tensor], torch.Tensor]:
    def posterior(rows: torch.Tensor) -> torch.Tensor:
        asked.append(rows.tolist())
        return torch.arange(size).double().expand(len(rows), 2, size) + rows[:, None, None]

    return posterior


def test_only_sites_that_a_tilt_touches_may_move_for_it() -> None:
    asked: list[list[int]] = []
    batch, noise = batch_of(torch.tensor([[0, 1], [2, 2], [1, 0]])), Noise.start(0, torch.arange(3))
    jump = torch.full((3, 2), 1e-9, dtype=torch.float64)
    weights = torch.zeros(3, 2, 3, dtype=torch.float64)
    weights[1, 1, 0] = 60.0
    step = Substitute(counting(asked), jump, torch.full((3, 2), -1)).tilted(weights)
    moved = step.draw(batch, noise, None, None).batch.tokens
    assert asked == [[1]] and moved.tolist() == [[0, 1], [2, 0], [1, 0]]


def test_what_is_kept_is_not_asked_again() -> None:
    asked: list[list[int]] = []
    batch = batch_of(torch.tensor([[0, 1], [2, 2], [1, 0]]))
    step = Substitute(counting(asked), torch.full((3, 2), 0.5).double(), torch.full((3, 2), -1))
    kept = step.kept(torch.tensor([2, 0]))
    for rows in ([0, 2], [2], [0, 0, 2]):
        assert all(map(torch.equal, kept.law(batch, torch.tensor(rows)), step.law(batch, torch.tensor(rows))))
    assert asked == [[2, 0], [0, 2], [2], [0, 0, 2]]
    kept.law(batch, torch.tensor([1, 2]))
    assert asked[-1] == [1, 2] and len(asked) == 5


def test_completion_draws_what_is_missing_from_the_posterior_and_keeps_the_rest() -> None:
    """Padding, which shows no data token either, is left alone."""
    mask, draws = 5, 20_000
    layout = Layout.padded(torch.tensor([2, 1]), 2)
    batch = SequenceBatch(torch.tensor([[1, mask], [mask, 6]]), layout)
    step = Substitute(counting([]), torch.full((2, 2), 0.5).double(), torch.full((2, 2), -1))
    tilt = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).expand(2, 2, 3)
    rows = torch.arange(2).repeat_interleave(draws)
    noise = Noise.start(0, torch.arange(2)).fork(draws)
    for law in (step, step.tilted(tilt)):
        found = law.complete(batch, rows, noise).unflatten(0, (2, draws))
        assert bool((found[0, :, 0] == 1).all()) and bool((found[1, :, 1] == 6).all())
        wanted = law.law(batch, torch.tensor([0]))[1][0, 0].exp()
        for drawn in (found[0, :, 1], found[1, :, 0]):
            counts = torch.bincount(drawn, minlength=3)
            assert float(chisquare(counts, draws * wanted).pvalue) > 1e-5
        assert not torch.equal(found[0, :, 1], found[1, :, 0])
    # The step itself draws from other numbers: it agrees as often as two draws of that law do.
    even = lambda rows: torch.zeros(len(rows), 2, 3, dtype=torch.float64)  # noqa: E731
    many = Substitute(even, torch.ones(2000, 2).double(), torch.full((2000, 2), -1))
    several, noise = batch_of(torch.full((2000, 2), mask)), Noise.start(0, torch.arange(2000))
    drawn = many.draw(several, noise, None, None).batch.tokens
    same = (drawn == many.complete(several, torch.arange(2000), noise)).double().mean()
    assert abs(float(same) - 1 / 3) < 5 * (2 / 9 / 4000) ** 0.5

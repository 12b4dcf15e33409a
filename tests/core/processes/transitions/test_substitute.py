"""Which rows a step asks the network for."""

from __future__ import annotations

import torch

from core.data.noise import Noise
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

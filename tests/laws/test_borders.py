"""Bad and border inputs give no NaN and lose no mass (4.19), with planted faults."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.errors import UserError
from core.guidance.constraint_set import ConstraintSet
from core.guidance.objectives.base import Scoreboard
from core.guidance.pareto import ParetoArchive, best_of
from core.processes._length import LengthPrior
from core.processes.mixture_flow import MixtureFlow
from core.processes.schedules import registry as schedules
from core.processes.schedules.base import Schedule
from core.tokenizers.base import Vocabulary
from tests.laws.test_constraints import Letters, built
from tests.laws.toys import ToyLaw, batch_of, kernel_matrix, neighbours

SCHEDULES = {
    **{key: schedules.get(key) for key in schedules.keys()},
    "root": lambda: schedules.get("polynomial")(0.5),  # infinite slope at 0
    "cube": lambda: schedules.get("polynomial")(3.0),  # no slope at 0
}
STEPS: tuple[Any, ...] = ("exact", "euler")
SOURCES: tuple[Any, ...] = ("mask", "uniform")


def kernels_stay_kernels(make: Callable[[], Schedule], source: Any, step: Any) -> None:
    """Rows sum to 1 and hold no NaN at both ends of time, whatever the slope there."""
    law = ToyLaw()
    process = MixtureFlow(law.vocabulary, source=source, schedule=make(), step=step).double()
    for t, s in ((0.0, 1e-9), (0.0, 0.5), (0.0, 1.0), (0.5, 0.5), (1 - 1e-9, 1.0), (1.0, 1.0)):
        kernel = kernel_matrix(process, law, neighbours(law.vocabulary, 3), t, s)
        assert bool((kernel >= 0).all())
        assert torch.allclose(kernel.sum(1), torch.ones(len(kernel)).double(), atol=1e-12)
    grid = process.grid(7)
    assert grid[0][0] == 0 and grid[-1][1] == 1 and all(t < s for t, s in grid)


def integrands_stay_finite(make: Callable[[], Schedule], source: Any) -> None:
    """The bound's integrand and its gradient, next to both ends of kappa."""
    process = MixtureFlow(Vocabulary(3), source=source, schedule=make()).double()
    clean = torch.tensor([[0, 1], [2, 2]])
    fixed = torch.tensor([[True, False], [True, True]])
    for kappa in (0.0, 1e-12, 0.5, 1 - 1e-9):
        logits = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
        noisy = torch.full_like(clean, process.vocabulary.mask) if source == "mask" else clean.flip(1)
        at = torch.full(clean.shape, kappa, dtype=torch.float64)
        value, _, _ = process.integrand(lambda *_: logits, batch_of(clean, fixed), batch_of(noisy, fixed), at)  # noqa: B023
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert bool(value.isfinite().all()) and bool(gradient.isfinite().all())
        assert not value[fixed].any() and not gradient[fixed].any()


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_kernels_stay_kernels(name: str, source: Any, step: Any) -> None:
    kernels_stay_kernels(SCHEDULES[name], source, step)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_integrands_stay_finite(name: str, source: Any) -> None:
    integrands_stay_finite(SCHEDULES[name], source)


def constants_and_nan_are_ranked() -> None:
    """One value everywhere divides by no zero span; NaN is never chosen and never enters."""
    table = np.array([[1.0, 2.0]] * 5 + [[np.nan, 9.0]])
    assert len(best_of(table, 3)) == 3 and 5 not in best_of(table, 6).tolist()
    archive = ParetoArchive(2)
    assert archive.add(table, list("abcdef")) == 5
    assert archive.hypervolume(0.0) == 2.0


def test_constants_and_nan_are_ranked() -> None:
    constants_and_nan_are_ranked()


def test_empty_scores() -> None:
    board = Scoreboard([])
    assert board.score([]).shape == (0, 0) and board.score(["A", "B"]).shape == (2, 0)


def test_an_empty_accepted_set_is_the_users_error() -> None:
    with pytest.raises(UserError, match="no sequence of length 0 to 0"):
        ConstraintSet(built(["contains:A"]), Letters("AB"), [0])
    with pytest.raises(UserError, match="no allowed length"):
        LengthPrior(5).draw(Noise.start(0, torch.arange(1)), (7,))


# --- planted faults ---------------------------------------------------------------------


def _division_by_what_is_left(patch: pytest.MonkeyPatch) -> None:
    def jump(self: MixtureFlow, batch: SequenceBatch, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        kappa = self.schedule.kappa(t)
        return (self.schedule.kappa(s) - kappa) / (1 - kappa)

    patch.setattr(MixtureFlow, "_jump", jump)


def _first_order_euler(patch: pytest.MonkeyPatch) -> None:
    def jump(self: MixtureFlow, batch: SequenceBatch, t: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return (s - t) * self.schedule.derivative(t) / (1 - self.schedule.kappa(t))

    patch.setattr(MixtureFlow, "_jump", jump)


def _fixed_sites_weighed(patch: pytest.MonkeyPatch) -> None:
    true = MixtureFlow.integrand

    def changed(self: MixtureFlow, network: Any, clean: Any, noisy: Any, kappa: torch.Tensor) -> Any:
        return true(self, network, batch_of(clean.tokens), noisy, kappa)

    patch.setattr(MixtureFlow, "integrand", changed)


def _nan_is_best(patch: pytest.MonkeyPatch) -> None:
    from core.guidance import pareto

    true = pareto.fronts
    patch.setattr(pareto, "fronts", lambda utilities: true(np.nan_to_num(utilities, nan=1e9)))


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (_division_by_what_is_left, lambda: kernels_stay_kernels(SCHEDULES["polynomial"], "mask", "exact")),
        (_first_order_euler, lambda: kernels_stay_kernels(SCHEDULES["root"], "uniform", "euler")),
        (_fixed_sites_weighed, lambda: integrands_stay_finite(SCHEDULES["polynomial"], "mask")),
        (_nan_is_best, constants_and_nan_are_ranked),
    ],
)
def test_planted_faults_are_caught(fault: Callable, law: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    law()
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()

"""4.6: each site has a time of its own, after any matrix of times; each law with planted faults.

A matrix has a row a step and a column a site, from 0 to 1, never decreasing; between its rows time runs straight. Its
bound is the sum over sites of the integrals of each site's integrand in d kappa.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from core.data.noise import Noise
from core.processes.autoregressive import Autoregressive
from core.processes.mixture_flow import MixtureFlow
from tests.laws.test_processes import expected_bound
from tests.laws.toy_faults import patched
from tests.laws.toy_sources import VOCABULARY, SourceToy
from tests.laws.toys import ToyLaw, batch_of

LENGTH, EXACT = 3, 1e-9
ONE_BY_ONE = torch.ones(LENGTH + 1, LENGTH).tril(-1).double()
TOGETHER = torch.tensor([[0.0], [1.0]]).expand(2, LENGTH).double()
SLIDING = torch.tensor([[0, 0, 0], [0.5, 0, 0], [1, 0.5, 0], [1, 1, 0.5], [1, 1, 1]]).double()


def random_matrix(seed: int) -> Tensor:
    """Any legal matrix of six rows."""
    rows = torch.rand(4, LENGTH, generator=torch.Generator().manual_seed(seed)).double().sort(0).values
    return torch.cat([torch.zeros(1, LENGTH), rows, torch.ones(1, LENGTH)]).double()


def bound_along(toy: SourceToy, matrix: Tensor) -> float:
    """E over x1, x_t and the way through the matrix of the sum of the sites' integrands."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    total = 0.0
    for before, after in zip(matrix[:-1], matrix[1:], strict=True):
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            each = toy.expected_integrand(before + float(node) * (after - before), toy.network)
            # A site that has arrived costs nothing more.
            total += float(weight) * float(torch.where(after > before, each * (after - before), 0.0).sum())
    return total


def chain_rule(toy: SourceToy) -> float:
    """E of the negative log-likelihood that an autoregressive process with the exact conditionals gives."""
    process = Autoregressive(VOCABULARY, limit=LENGTH)

    def conditionals(batch, time: Tensor | None) -> Tensor:
        logits = torch.full((*batch.tokens.shape, VOCABULARY.size + 1), -1e300, dtype=torch.float64)
        for place in range(LENGTH):
            same = (batch.tokens[:, None, 1 : place + 1] == toy.sequences[None, :, :place]).all(-1)
            hot = torch.nn.functional.one_hot(toy.sequences[:, place], VOCABULARY.size).double()
            logits[:, place, :-1] = ((same * toy.q) @ hot).log()
        logits[:, LENGTH, -1] = 0.0
        return logits

    noise = Noise.start(0, torch.arange(len(toy.sequences)))
    return float(process.likelihood(conditionals, batch_of(toy.sequences), noise, 1).nll @ toy.q)


def one_by_one_is_the_chain_rule() -> None:
    toy = SourceToy("mask", LENGTH)
    assert abs(bound_along(toy, ONE_BY_ONE) - chain_rule(toy)) < EXACT


def together_is_the_bound_of_one_time() -> None:
    toy, law = SourceToy("mask", LENGTH), ToyLaw(length=LENGTH)
    assert torch.equal(toy.q, law.q)
    plain = expected_bound(law, toy.process, law.network("mask"), 8)
    assert abs(bound_along(toy, TOGETHER) - plain) < EXACT and abs(plain - toy.entropy) < EXACT


def any_matrix_is_tight(matrix: Tensor) -> None:
    toy = SourceToy("mask", LENGTH, seed=1)
    assert abs(bound_along(toy, matrix) - toy.entropy) < EXACT


def test_one_by_one_is_the_chain_rule() -> None:
    one_by_one_is_the_chain_rule()


def test_together_is_the_bound_of_one_time() -> None:
    together_is_the_bound_of_one_time()


@pytest.mark.parametrize("matrix", [SLIDING, random_matrix(0), random_matrix(1)], ids=["sliding", "random", "other"])
def test_any_matrix_is_tight(matrix: Tensor) -> None:
    any_matrix_is_tight(matrix)


def one_by_one_samples_exactly(name: str) -> None:
    """A step that moves one site from 0 to 1 draws it given the others: a run of L steps is exact."""
    toy = SourceToy(name, LENGTH, seed=2)
    now = toy.law[torch.arange(LENGTH), toy.states].prod(-1)
    for before, after in zip(ONE_BY_ONE[:-1], ONE_BY_ONE[1:], strict=True):
        now = now @ toy.forward(before, after)
    assert float((now - toy.marginal(1.0)).abs().max()) < EXACT


@pytest.mark.parametrize("name", ["mask", "given", "coupled"])
def test_one_by_one_samples_exactly(name: str) -> None:
    one_by_one_samples_exactly(name)


def corruption_shows_each_site_for_its_own_time(draws: int = 20_000) -> None:
    process = SourceToy("mask").process
    time = torch.tensor([[0.2, 0.9]]).double().expand(draws, 2)
    noise = Noise.start(1, torch.arange(draws))
    noisy = process.corrupt(batch_of(torch.zeros(draws, 2, dtype=torch.long)), time, noise)
    shown = (noisy.tokens == 0).double().mean(0)
    # Four standard errors.
    assert bool(((shown - time[0]).abs() < 4 * (time[0] * (1 - time[0]) / draws).sqrt()).all())


def test_corruption_shows_each_site_for_its_own_time() -> None:
    corruption_shows_each_site_for_its_own_time()


# --- planted faults ---------------------------------------------------------------------


def _one_time_for_all(patch: pytest.MonkeyPatch) -> None:
    true = MixtureFlow.corrupt
    mean = lambda time: time.mean(1, keepdim=True).expand(time.shape)  # noqa: E731
    patch.setattr(MixtureFlow, "corrupt", lambda self, batch, time, noise: true(self, batch, mean(time), noise))


_FIRST_SITE_RULES = patched(MixtureFlow, "_jump", lambda found, self, batch, t, s: found[:, :1].expand(found.shape))
_MEAN_TIME_IN_THE_COST = patched(
    MixtureFlow, "integrand", lambda found, *asked: (found[0] * (1 - asked[-1]) / (1 - asked[-1].mean()), *found[1:])
)
_NO_TIME_IN_THE_COST = patched(MixtureFlow, "integrand", lambda found, *asked: (found[0] * (1 - asked[-1]), *found[1:]))


@pytest.mark.parametrize(
    ("fault", "law"),
    [
        (_one_time_for_all, corruption_shows_each_site_for_its_own_time),
        (_FIRST_SITE_RULES, lambda: one_by_one_samples_exactly("given")),
        (_MEAN_TIME_IN_THE_COST, lambda: any_matrix_is_tight(SLIDING)),
        (_MEAN_TIME_IN_THE_COST, one_by_one_is_the_chain_rule),
        (_NO_TIME_IN_THE_COST, together_is_the_bound_of_one_time),
    ],
)
def test_planted_faults_are_caught(
    fault: Callable[[pytest.MonkeyPatch], None], law: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()

"""Loss and likelihood by hand, and the ends of the grid."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import kstest

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.packing import pack, packed_layout
from core.data.sequence_batch import SequenceBatch
from core.processes import _mixture_path
from core.processes._sites import per_site
from core.processes.mixture_flow import MixtureFlow
from core.processes.schedules import registry as schedules
from core.tokenizers.base import Vocabulary
from tests.laws.toy_faults import patched

VOCABULARY = Vocabulary(3)
TABLE = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
LENGTHS = torch.tensor([3, 1, 0, 5, 4])
SOURCES = ("mask", "uniform")


class Asked:
    """Logits by the token shown; remembers every question."""

    def __init__(self) -> None:
        self.batches: list[SequenceBatch] = []
        self.times: list[torch.Tensor | None] = []

    def __call__(self, batch: SequenceBatch, time: torch.Tensor | None) -> torch.Tensor:
        self.batches.append(batch)
        self.times.append(time)
        return TABLE[batch.tokens.flatten(1)]


def sequences(packed: bool = False, fields: tuple[int, ...] = ()) -> SequenceBatch:
    rows = torch.randint(3, (5, 5, *fields), generator=torch.Generator().manual_seed(1))
    layout = Layout.padded(LENGTHS, 5)
    if packed:
        return SequenceBatch(pack(rows, layout, 16), packed_layout(layout, 16))
    return SequenceBatch(rows, layout)


# --- times of the loss ------------------------------------------------------------------


def times_are_even_and_each_is_uniform() -> None:
    """N sequences lie 1 / N apart on the circle; none of them prefers any part of it."""
    process, asked = MixtureFlow(VOCABULARY, source="uniform"), Asked()
    batch = SequenceBatch(torch.zeros(5, 2, dtype=torch.long), Layout.padded(torch.full((5,), 2), 2))
    for seed in range(100):
        process.loss(asked, batch, Noise.start(seed, torch.arange(5)))
    times = torch.stack([time for time in asked.times if time is not None])
    kappa = times[..., 0]
    assert times.shape == (100, 5, 2) and torch.equal(kappa, times[..., 1])
    gaps = torch.diff(kappa.sort(1).values, dim=1)
    # The largest kappa is 1 - 1e-4.
    assert bool(((gaps - 0.2).abs() < 1.1e-4).all()) and 0 <= float(kappa.min()) and float(kappa.max()) <= 1 - 1e-4
    for row in kappa.unbind(1):
        assert kstest(row.numpy(), "uniform").pvalue > 1e-5


def test_times_are_even_and_each_is_uniform() -> None:
    times_are_even_and_each_is_uniform()


def test_planted_fault_a_row_with_a_part_of_its_own_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    sort = lambda found, batch, values: per_site(batch, values.sort(0).values)  # noqa: E731
    patched(_mixture_path, "per_site", sort)(monkeypatch)
    with pytest.raises(AssertionError):
        times_are_even_and_each_is_uniform()


def test_no_time_of_the_loss_reaches_one(monkeypatch: pytest.MonkeyPatch) -> None:
    most = torch.tensor(1 - 2.0**-53, dtype=torch.float64)
    monkeypatch.setattr(Noise, "uniform", lambda self, sites, *a: most.expand(len(self.sequences), sites))
    process, asked = MixtureFlow(VOCABULARY, source="uniform"), Asked()
    loss = process.loss(asked, sequences().select(torch.tensor([0])), Noise.start(0, torch.arange(1)))
    assert asked.times[0] is not None and float(asked.times[0].max()) == 1 - 1e-4
    assert bool(loss.values.isfinite().all())


# --- values of the loss -----------------------------------------------------------------


def by_hand(process: MixtureFlow, clean: SequenceBatch, noisy: SequenceBatch, kappa: torch.Tensor) -> tuple[Any, ...]:
    """Integrand and cross-entropy site by site, with the number of sites that count."""
    law = TABLE.log_softmax(-1)
    data, shown = clean.tokens.flatten(1), noisy.tokens.flatten(1)
    fields = data.shape[1] // clean.layout.shape[1]
    value, entropy, counted = torch.zeros_like(kappa), torch.zeros_like(kappa), 0
    for b in range(data.shape[0]):
        for s in range(data.shape[1]):
            held = clean.fixed is not None and bool(clean.fixed.flatten(1)[b, s])
            if held or not bool(clean.layout.valid[b, s // fields]):
                continue
            x, z = int(data[b, s]), int(shown[b, s])
            surprise, here = -float(law[z, x]), float(law[z, z].exp()) if z < 3 else 0.0
            if process.source == "mask" and z != VOCABULARY.mask:
                continue
            counted += 1
            entropy[b, s] = surprise
            bound = surprise if process.source == "mask" else (1 - here if x == z else surprise - here)
            value[b, s] = bound / (1 - kappa[b, s])
    return value, entropy, counted


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("layout", ["padded", "packed", "fields"])
@pytest.mark.parametrize("source", SOURCES)
def test_loss_is_the_integrand_or_the_cross_entropy(source: Any, layout: str, hold: bool) -> None:
    clean = sequences(layout == "packed", (2,) if layout == "fields" else ())
    if hold:
        clean = replace(clean, fixed=torch.rand(clean.tokens.shape) < 0.3)
    noise, tokens = Noise.start(2, torch.arange(5)), 13 * (2 if layout == "fields" else 1)
    for objective in ("kl", "cross_entropy"):
        process, asked, seen = MixtureFlow(VOCABULARY, source, loss=objective), Asked(), []
        integrand = process.integrand
        process.integrand = lambda *a, seen=seen, true=integrand: seen.append(a) or true(*a)  # type: ignore[method-assign]
        loss = process.loss(asked, clean, noise)
        value, entropy, counted = by_hand(process, clean, *seen[0][2:])
        assert 0 < counted <= tokens and (asked.times[0] is None) == (source == "mask")
        wanted = value if objective == "kl" else entropy
        assert torch.allclose(loss.values.double(), wanted.double(), atol=1e-6)
        assert int(loss.count) == (tokens if objective == "kl" else counted)
        assert float(loss.mean()) == pytest.approx(float(wanted.sum()) / int(loss.count), rel=1e-6)


# --- likelihood -------------------------------------------------------------------------


@pytest.mark.parametrize("source", SOURCES)
def test_error_is_the_standard_error_of_the_bound(source: Any) -> None:
    """Over many draws the mean squared error told is the variance seen, and halves are independent."""
    process, draws = MixtureFlow(VOCABULARY, source=source, limit=5), 1500
    batch = SequenceBatch(torch.tensor([[0, 2, 1, 1]]), Layout.padded(torch.tensor([4]), 4)).fork(draws)
    found = process.likelihood(Asked(), batch, Noise.start(1, torch.arange(draws)), 8)
    assert found.kind == "bound" and found.tokens.tolist() == [5] * draws
    # The variance of a mean square of 1500 nearly normal errors: 4 standard errors are 15 %, tails double it.
    assert float(found.error.square().mean() / found.nll.var()) == pytest.approx(1, abs=0.3)
    assert bool((found.error >= 0).all())


def test_likelihood_of_the_mask_source_is_the_cross_entropy_and_the_length() -> None:
    """Each site is masked for kappa below its own number: the integral of 1 / (1 - kappa) over it is 1 on average."""
    process, draws = MixtureFlow(VOCABULARY, limit=5), 4000
    process.length_prior.fit(torch.tensor([2, 2, 5]))
    batch = SequenceBatch(torch.tensor([[0, 2]]), Layout.padded(torch.tensor([2]), 2)).fork(draws)
    found = process.likelihood(Asked(), batch, Noise.start(1, torch.arange(draws)), 16)
    law = TABLE.log_softmax(-1)[VOCABULARY.mask]
    wanted = -float(law[0] + law[2]) + float(process.length_prior.nll(torch.tensor([2])))
    assert abs(float(found.nll.mean()) - wanted) < 4 * float(found.nll.std()) / draws**0.5


@pytest.mark.parametrize("points", [2, 8])
def test_likelihood_asks_once_a_point_and_covers_every_stratum(points: int) -> None:
    process, asked = MixtureFlow(VOCABULARY, source="uniform"), Asked()
    batch = SequenceBatch(torch.zeros(4, 60, dtype=torch.long), Layout.padded(torch.full((4,), 60), 60))
    process.likelihood(asked, batch, Noise.start(3, torch.arange(4)), points)
    kappa = torch.stack([time[:, 0] for time in asked.times if time is not None])
    assert kappa.shape == (points, 4)
    strata = (kappa * (points // 2)).floor().long()
    assert strata.tolist() == [[point] * 4 for point in range(points // 2)] * 2
    # Every point has noise and a place in its stratum of its own.
    assert len(kappa.unique()) == points * 4
    assert len({noisy.tokens.numpy().tobytes() for noisy in asked.batches}) == points


@pytest.mark.parametrize("source", SOURCES)
def test_likelihood_of_a_sequence_does_not_depend_on_the_others(source: Any) -> None:
    process = MixtureFlow(VOCABULARY, source=source, limit=5)
    noise, batch = Noise.start(3, torch.arange(5)), sequences()
    together = process.likelihood(Asked(), batch, noise, 6)
    packed = process.likelihood(Asked(), sequences(packed=True), noise, 6)
    assert torch.allclose(packed.nll[[0, 1, 3, 4]], together.nll[[0, 1, 3, 4]], atol=1e-9)
    assert torch.allclose(packed.error, together.error, atol=1e-9) and together.tokens.tolist() == [4, 2, 1, 6, 5]
    for n in (0, 1, 3, 4):
        row = torch.tensor([n])
        alone = process.likelihood(Asked(), batch.select(row), noise.select(row), 6)
        assert torch.allclose(alone.nll, together.nll[n], atol=1e-9)
        assert torch.allclose(alone.error, together.error[n], atol=1e-9)


# --- sampling ---------------------------------------------------------------------------


@pytest.mark.parametrize("key", schedules.keys())
def test_grid_has_equal_steps_in_kappa(key: str) -> None:
    process = MixtureFlow(VOCABULARY, schedule=schedules.get(key)())
    for steps in (1, 2, 7):
        grid = process.grid(steps)
        assert len(grid) == steps and grid[0][0] == 0.0 and grid[-1][1] == 1.0
        assert all(before[1] == after[0] for before, after in zip(grid, grid[1:], strict=False))
        ends = process.schedule.kappa(torch.tensor([s for _, s in grid], dtype=torch.float64))
        assert ends.tolist() == pytest.approx([(i + 1) / steps for i in range(steps)], abs=1e-9)


@pytest.mark.parametrize("step", ["exact", "euler"])
@pytest.mark.parametrize("key", schedules.keys())
@pytest.mark.parametrize("source", SOURCES)
def test_the_last_step_leaves_nothing_of_the_source(source: Any, key: str, step: Any) -> None:
    process = MixtureFlow(VOCABULARY, source, schedules.get(key)(), step=step)
    start = process.prior(LENGTHS, Noise.start(0, torch.arange(5)))
    for t in (0.0, 0.3, 0.999, 1.0):
        assert torch.equal(process.transition(Asked(), start, t, 1.0).jump, start.layout.valid.double())
    early = process.transition(Asked(), start, 0.2, 0.4).jump[start.layout.valid]
    assert bool((early > 0).all()) and bool((early < 1).all())

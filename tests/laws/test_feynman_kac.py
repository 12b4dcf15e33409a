"""Laws of Feynman-Kac steering against enumeration (4.12), with planted faults."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding import _walk, feynman_kac
from core.decoding._cloud import Cloud
from core.decoding._walk import Road, Walk
from core.decoding.base import Samples
from core.decoding.feynman_kac import FeynmanKac
from core.processes.autoregressive import Autoregressive
from core.processes.base import Network, Process
from core.processes.mixture_flow import MixtureFlow
from core.tokenizers.base import Vocabulary
from tests.laws.toy_aims import Aims, first, run_of, zeros
from tests.laws.toy_kinds import fit
from tests.laws.toy_runs import Run
from tests.laws.toys import ToyLaw, kernel_matrix, neighbours

SIGMAS = 4.0  # frozen
STRENGTH, STEPS = 1.5, 3
LAW = ToyLaw(size=3, length=2, seed=3)
# Utilities of all sequences of LAW; one of them has none.
VALUES = dict(
    zip(
        map(tuple, LAW.sequences.tolist()),
        torch.randn(9, generator=torch.Generator().manual_seed(5)).tolist(),
        strict=True,
    )
)
VALUES[1, 1] = math.nan
WRITER = Autoregressive(Vocabulary(2), limit=3)


def flow(source: Any) -> tuple[Process, Network, dict[Any, float]]:
    """A flow and the law of its run in STEPS steps, by the product of its kernels over all states."""
    process = MixtureFlow(LAW.vocabulary, source=source, limit=2).double()
    states, network = LAW.states(source), LAW.network(source)
    now = ((states == LAW.vocabulary.mask) if source == "mask" else states >= 0).all(1).double()
    now = now / now.sum()
    for t, s in process.grid(STEPS):
        now = now @ kernel_matrix(process, LAW, network, t, s)
    return process, network, dict(zip(map(tuple, states.tolist()), now.tolist(), strict=True))


def written() -> tuple[Process, Network, dict[Any, float]]:
    """A process that writes one token after the other, and the law of what it writes."""
    network, law = neighbours(WRITER.vocabulary, 3, seed=2), {}
    for length in range(WRITER.limit + 1):
        for tokens in itertools.product(range(2), repeat=length):
            chance, shown = 0.0, [WRITER.vocabulary.bos, *tokens]
            for place in range(min(length + 1, WRITER.limit)):
                step = network(SequenceBatch.padded([torch.tensor(shown[: place + 1])]), None)[0, -1].log_softmax(-1)
                chance += float(step[tokens[place] if place < length else 2])
            law[tokens] = math.exp(chance)
    return WRITER, network, law


TOYS: dict[str, Callable[[], tuple[Process, Network, dict[Any, float]]]] = {
    "mask": lambda: flow("mask"),
    "uniform": lambda: flow("uniform"),
    "append": written,
}


def value_of(sequence: tuple[int, ...]) -> float:
    return VALUES[sequence] if len(sequence) == 2 else 0.4 * len(sequence)


def steered(name: str, rows: int, seed: int = 1, **options: Any) -> tuple[Samples, dict[Any, float]]:
    """Samples of a toy, and p(x) exp(strength u(x)) of every sequence."""
    process, network, law = TOYS[name]()
    noise = Noise.start(seed, torch.arange(rows))
    start = process.prior(torch.full((rows,), 0 if name == "append" else 2), noise)
    settings = {"strength": STRENGTH, "steps": STEPS, "every": 1, "context": Aims(value_of), **options}
    samples = FeynmanKac(**settings).sample(process, network, start, noise)
    values = {x: value_of(x) for x in law if LAW.vocabulary.mask not in x or name == "append"}
    return samples, {x: law[x] * math.exp(STRENGTH * u) for x, u in values.items() if not math.isnan(u)}


def unasked(condition: Any) -> Any:
    raise AssertionError("the model is not asked")


def within(found: Tensor, wanted: float) -> None:
    """The mean of independent values is what is wanted."""
    error = float(found.std() / len(found) ** 0.5)
    assert abs(float(found.mean()) - wanted) < SIGMAS * error + 1e-12


def normalisers_are_unbiased(name: str, rows: int = 600, **options: Any) -> None:
    samples, target = steered(name, rows, **options)
    assert samples.particles is not None
    within(samples.particles.log_normalisers.exp(), sum(target.values()))


def weighted_sequences_have_the_tilted_law(name: str, rows: int = 600, **options: Any) -> None:
    """The weight of each sequence is p(x) exp(strength u(x)) in the mean."""
    samples, target = steered(name, rows, **options)
    assert samples.particles is not None
    weights, law = samples.particles.log_weights.exp(), TOYS[name]()[2]
    drawn = [[tuple(row.tolist()) for row in rows] for rows in samples.particles.tokens]
    # What is drawn a few times tells no deviation, so that all of it counts as one.
    seldom = {x for x in target if law[x] * weights.numel() < 50}
    for cell in [seldom, *({x} for x in target if x not in seldom)]:
        hit = torch.tensor([[x in cell for x in row] for row in drawn])
        within((weights * hit).mean(1), sum(target[x] for x in cell))


def three_steps_reach_the_tilted_mean(threshold: float = 1.0, size: int = 16, rows: int = 1000) -> None:
    """Steered by exp(sum / 2) the mean sum of three fair coins is 1.867, where 1.5 is unsteered."""
    process, wanted = MixtureFlow(Vocabulary(2), limit=3).double(), 3 / (1 + math.exp(-0.5))
    assert wanted == pytest.approx(1.867, abs=5e-4)
    noise = Noise.start(8, torch.arange(rows))
    start = process.prior(torch.full((rows,), 3), noise)
    even = lambda batch, time: torch.zeros(*batch.tokens.shape, 2).double()  # noqa: E731
    sampler = FeynmanKac(size, 0.5, 3, 1, 1, threshold=threshold, context=Aims(sum))
    samples = sampler.sample(process, even, start, noise)
    assert samples.particles is not None
    weights = samples.particles.log_weights.exp()
    sums = torch.tensor([[float(row.sum()) for row in rows] for rows in samples.particles.tokens])
    within((weights * (sums - wanted)).mean(1), 0.0)
    given = torch.tensor([float(row.sum()) for row in samples.tokens])
    # One sequence of 16 is not yet the target, but far from 1.5 and within a fiftieth of it.
    assert abs(float(given.mean()) - wanted) < wanted / 50 + SIGMAS * float(given.std()) / rows**0.5


def potentials_are_unbiased(draws: int = 2, rows: int = 4000) -> None:
    """The mean of a potential is the mean of what it looks ahead to."""
    process, network = MixtureFlow(Vocabulary(2), limit=2).double(), neighbours(Vocabulary(2), 2, seed=1)
    noise = Noise.start(2, torch.arange(rows))
    start = process.prior(torch.full((rows,), 2), noise)
    alone = lambda batch, time: network(start.select(torch.zeros(batch.layout.count).long()), None)  # noqa: E731
    sampler = FeynmanKac(1, STRENGTH, STEPS, 1, draws, context=Aims(zeros))
    road = Road(process, alone, STEPS, None)
    walk = Walk(road, start, noise)
    walk.step(0)
    aim = feynman_kac._Aim(Aims(zeros)(unasked, noise), STRENGTH, torch.ones(rows, 1).double(), 1)
    chance = alone(start, None)[0].softmax(-1)[:, 0]
    wanted = float((1 + chance * (math.exp(STRENGTH) - 1)).prod())
    within(sampler._ahead(walk, 1, aim).exp(), wanted)


CASES = [
    {"particles": size, "threshold": threshold, "rows": 600 if size == 4 else 60}
    for size in (4, 64)
    for threshold in (0.0, 0.5, 1.0)
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['particles']}-{case['threshold']}")
@pytest.mark.parametrize("name", TOYS)
def test_normalisers_are_unbiased(name: str, case: dict[str, Any]) -> None:
    normalisers_are_unbiased(name, **case)


@pytest.mark.parametrize("form", ["diff", "max", "sum"])
@pytest.mark.parametrize("draws", [0, 1, 4])
def test_every_form_has_one_target(form: str, draws: int) -> None:
    normalisers_are_unbiased("mask", particles=8, form=form, draws=draws, every=2, threshold=1.0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['particles']}-{case['threshold']}")
def test_weighted_sequences_have_the_tilted_law(case: dict[str, Any]) -> None:
    weighted_sequences_have_the_tilted_law("mask", **case)


@pytest.mark.parametrize("name", ["uniform", "append"])
def test_weighted_sequences_have_the_tilted_law_of_other_kinds(name: str) -> None:
    weighted_sequences_have_the_tilted_law(name, particles=4, threshold=0.8)


@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_three_steps_reach_the_tilted_mean(threshold: float) -> None:
    three_steps_reach_the_tilted_mean(threshold=threshold)


@pytest.mark.parametrize("draws", [1, 4])
def test_potentials_are_unbiased(draws: int) -> None:
    potentials_are_unbiased(draws)


def test_given_sequences_tend_to_the_target() -> None:
    """With 64 particles each given sequence has, to the resolution of 1,500, the tilted law."""
    samples, target = steered("mask", 1500, particles=64, threshold=0.5)
    law = {x: mass / sum(target.values()) for x, mass in target.items()}
    assert fit(law, [tuple(row.tolist()) for row in samples.tokens]) > 1e-5


@pytest.mark.parametrize("name", ["mask", "append"])
def test_no_strength_is_the_unsteered_law(name: str) -> None:
    """Equal weights and the law of the process; reached continuously, sequences staying as they are."""
    process, network, law = TOYS[name]()
    noise = Noise.start(3, torch.arange(3000))
    start = process.prior(torch.full((3000,), 0 if name == "append" else 2), noise)
    found = []
    for strength in (0.0, 1e-9, 2.0):
        drawn = FeynmanKac(4, strength, STEPS, 1, 1, context=Aims(zeros)).sample(process, network, start, noise)
        assert drawn.particles is not None
        found.append([tuple(row.tolist()) for row in drawn.tokens])
        if strength < 1:
            assert torch.allclose(drawn.particles.log_weights, torch.zeros(1).double(), rtol=0, atol=1e-8)
    assert found[0] == found[1] != found[2]
    assert fit(law, found[0]) > 1e-5


def test_weights_of_objectives() -> None:
    """Their sum is what is steered by; spread ones differ by row and are those given in the mean."""
    given, ids = Aims(zeros, first, weights=(1.0, 0.5)), torch.arange(24)
    sampler = lambda aims, **options: FeynmanKac(4, 1.0, 4, 1, context=aims, **options)  # noqa: E731
    one = run_of(sampler(given), Run("mask"), ids).particles
    other = run_of(sampler(Aims(lambda x: zeros(x) + 0.5 * first(x))), Run("mask"), ids).particles
    assert one is not None and other is not None
    assert torch.allclose(one.log_weights, other.log_weights, rtol=0, atol=1e-12)
    noise = Noise.start(0, torch.arange(4000))
    drawn = sampler(given, spread=True)._weights(given(unasked, noise), noise)
    for column, wanted in zip(drawn.unbind(1), (1.0, 0.5), strict=True):
        within(column, wanted)
        # Even on the segment from (2, 0) to (0, 1).
        assert float(column.std()) == pytest.approx(2 * wanted / 12**0.5, rel=0.05)


def test_settings_that_make_no_sense_are_refused() -> None:
    bad: list[dict[str, Any]] = [
        {"particles": 0}, {"draws": -1}, {"every": 0}, {"steps": 0}, {"strength": math.nan}, {"threshold": 1.5},
        {"particles": 40_000},
    ]  # fmt: skip
    for options in bad:
        with pytest.raises(ValueError, match=r"at least|finite|at most"):
            FeynmanKac(**options)
    with pytest.raises(ValueError, match="steering needs a context with objectives"):
        run_of(FeynmanKac(), Run("mask"), torch.arange(2))


# --- planted faults ---------------------------------------------------------------------


def _drop_what_is_not_resampled(patch: pytest.MonkeyPatch) -> None:
    true = Cloud.resampled

    def dropped(self: Cloud, threshold: float, uniform: Tensor) -> Tensor | None:
        before, ancestors = self.base.clone(), true(self, threshold, uniform)
        same = (self.base == before).reshape(-1, self.size).all(1).repeat_interleave(self.size)
        self.base = torch.where(same & ~self.settled & (self.gained != 0), -self.gained, self.base)
        return ancestors

    patch.setattr(Cloud, "resampled", dropped)


def _no_last_potential(patch: pytest.MonkeyPatch) -> None:
    def kept(self: Cloud, places: Tensor, values: Tensor) -> None:
        self.settled[places] = True

    patch.setattr(Cloud, "settle", kept)


def _mean_of_values(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(feynman_kac, "log_mean", lambda values: values.mean(1))


def _weights_outlive_resampling(patch: pytest.MonkeyPatch) -> None:
    true = Cloud.resampled

    def kept(self: Cloud, threshold: float, uniform: Tensor) -> Tensor | None:
        before, ancestors = self.base.clone(), true(self, threshold, uniform)
        if ancestors is not None:
            self.base = before[ancestors]
        return ancestors

    patch.setattr(Cloud, "resampled", kept)


def _weights_become_one(patch: pytest.MonkeyPatch) -> None:
    true = Cloud.resampled

    def reset(self: Cloud, threshold: float, uniform: Tensor) -> Tensor | None:
        before, ancestors = self.base.clone(), true(self, threshold, uniform)
        self.base = torch.where(self.base == before, self.base, -self.gained)
        return ancestors

    patch.setattr(Cloud, "resampled", reset)


def _first_particles_survive(patch: pytest.MonkeyPatch) -> None:
    true = Cloud.resampled
    patch.setattr(Cloud, "resampled", lambda self, threshold, uniform: true(self, threshold, 0 * uniform))


def _one_noise_for_both(patch: pytest.MonkeyPatch) -> None:
    """A particle is weighed by the very numbers that it will go on with."""
    patch.setattr(feynman_kac, "aside", lambda noise, draws, turn: noise.fork(draws))


def _ancestors_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(_walk.Walk, "take", lambda self, ancestors: None)


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = {
    "weights_dropped": (
        _drop_what_is_not_resampled,
        lambda: weighted_sequences_have_the_tilted_law("mask", particles=4, threshold=0.0),
    ),
    "weights_dropped_on_the_three_steps": (
        _drop_what_is_not_resampled, lambda: three_steps_reach_the_tilted_mean(threshold=0.5)
    ),
    "no_last_potential": (_no_last_potential, lambda: weighted_sequences_have_the_tilted_law("mask", particles=4)),
    "no_last_potential_on_the_three_steps": (_no_last_potential, three_steps_reach_the_tilted_mean),
    "mean_of_values": (_mean_of_values, potentials_are_unbiased),
    "weights_outlive_resampling": (
        _weights_outlive_resampling, lambda: normalisers_are_unbiased("mask", particles=4, threshold=1.0)
    ),
    "weights_become_one": (_weights_become_one, lambda: normalisers_are_unbiased("mask", particles=4, threshold=1.0)),
    "first_particles_survive": (
        _first_particles_survive, lambda: normalisers_are_unbiased("mask", particles=4, threshold=1.0)
    ),
    "one_noise_for_both": (
        _one_noise_for_both,
        lambda: weighted_sequences_have_the_tilted_law("mask", 2000, particles=4, threshold=1.0, draws=1),
    ),
    "ancestors_forgotten": (
        _ancestors_forgotten, lambda: weighted_sequences_have_the_tilted_law("mask", 2000, particles=8, threshold=1.0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law = FAULTS[name]
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()

"""Classifier-free guidance: p_c (p_c / p_u)^w on every kind of step, by enumeration."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from scipy.stats import kstest, norm
from torch import Tensor

from core.backbones.backbone import Backbone
from core.backbones.network import BackboneNetwork
from core.backbones.state import State
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.ancestral import Ancestral
from core.decoding.base import Sampler, Samples
from core.decoding.stepwise import Stepwise
from core.errors import UserError
from core.guidance.guides.base import GuideContext, Model
from core.guidance.guides.classifier_free import ClassifierFree
from core.guidance.objectives.base import Scoreboard
from core.processes.autoregressive import Autoregressive
from core.processes.base import Network, Process
from core.processes.mixture_flow import MixtureFlow
from core.processes.transitions import append, edit, insert, substitute
from core.processes.transitions._contrast import contrast
from core.processes.transitions.drift import Drift
from tests.laws import toy_kinds
from tests.laws.toy_drift import MEAN, ToyDrift, moments, velocity
from tests.laws.toy_faults import patched, replaced
from tests.laws.toy_kinds import DRAWS, KINDS, VOCABULARY, Kind, constraints, fit, outcomes
from tests.laws.toys import ToyLaw, neighbours

LEAST_P = 1e-5  # frozen
CLASSES = (ToyLaw(length=2, seed=3), ToyLaw(length=2, seed=8))


def context(model: Model, noise: Noise) -> GuideContext:
    return GuideContext(model, lambda batch: [], noise, Scoreboard([]))


def known(batch: SequenceBatch) -> Tensor:
    """Which rows have a condition."""
    assert batch.condition is not None
    return ~batch.condition.isnan().any(1)


def either(given: Network, free: Network) -> Network:
    """One network for sequences with a condition, another for those without."""

    def answer(batch: SequenceBatch, time: Tensor | None) -> Tensor:
        choice = known(batch).reshape(-1, 1, 1)
        return torch.where(choice, given(batch, time), free(batch, time))

    return answer


# --- one step of every kind -------------------------------------------------------------


def without_condition(name: str) -> Kind:
    """The kind as the network without a condition has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(toy_kinds, "neighbours", lambda vocabulary, outputs: neighbours(vocabulary, outputs, seed=1))
        return KINDS[name]()


def guided_sites(given: Kind, free: Kind, weight: float) -> Tensor:
    """The factors of the guided kernel; of a substitution the posteriors alone are mixed."""
    if given.posterior is None or free.posterior is None or given.jump is None:
        mixed = (1 + weight) * given.sites - weight * free.sites
        return torch.where(given.sites == -torch.inf, -torch.inf, mixed).log_softmax(-1)
    mass = given.posterior ** (1 + weight) * free.posterior**-weight
    # Sites that are settled have no law to mix, and stay.
    mass = torch.where(given.jump[:, None] > 0, mass, given.posterior)
    probs = torch.zeros_like(given.sites)
    probs[:, :3] = given.jump[:, None] * mass / mass.sum(-1, keepdim=True)
    shown = given.batch.tokens.flatten()
    probs[torch.arange(len(shown)), shown] += 1 - given.jump
    return probs.log()


def steps_have_the_guided_kernel(name: str, weight: float = 1.5) -> None:
    given, free = KINDS[name](), without_condition(name)
    kind = replace(given, network=either(given.network, free.network))
    kind = replace(kind, batch=replace(kind.batch, condition=torch.ones(1, 1)))
    batch = kind.batch.fork(DRAWS)
    model = lambda condition: kind.process.transition(  # noqa: E731
        kind.network, replace(batch, condition=condition), *kind.times
    )
    noise = Noise.start(3, torch.arange(DRAWS))
    step = ClassifierFree(weight).reweight(kind.transition(DRAWS), batch, *kind.times, context(model, noise))
    wanted = replace(given, sites=guided_sites(given, free, weight)).law()
    assert sum(wanted.values()) == pytest.approx(1)
    assert fit(wanted, outcomes(kind, step)) > LEAST_P


@pytest.mark.parametrize("weight", [-1.0, -0.5, 1.5])
@pytest.mark.parametrize("name", KINDS)
def test_steps_have_the_guided_kernel(name: str, weight: float) -> None:
    """-1 is the model without a condition."""
    steps_have_the_guided_kernel(name, weight)


# --- whole runs on two classes ----------------------------------------------------------


def two_classes(source: str) -> Network:
    """The exact posterior of class 0 under its condition, of the even mixture of both without."""
    both = ToyLaw(length=2)
    both.q = (CLASSES[0].q + CLASSES[1].q) / 2
    return either(CLASSES[0].network(source), both.network(source))


def guided(
    process: Process, network: Network, weight: float, draws: int, sampler: Any = Stepwise, length: int = 2, **more: Any
) -> list[tuple[int, ...]]:
    noise = Noise.start(7, torch.arange(draws))
    start = process.prior(torch.full((draws,), length), noise)
    start = replace(start, condition=torch.ones(draws, 1))
    tool: Sampler = sampler(guides=[ClassifierFree(weight)], context=context, **more)
    return [tuple(row.tolist()) for row in tool.sample(process, network, start, noise).tokens]


class Chain:
    """The exact next-token laws of two classes, read token by token: the sequences of a class, then the end."""

    def __init__(self) -> None:
        self.laws = (CLASSES[0].q, (CLASSES[0].q + CLASSES[1].q) / 2)

    def law(self, prefix: tuple[int, ...], free: bool) -> Tensor:
        if len(prefix) == 2:
            return torch.tensor([-torch.inf, -torch.inf, -torch.inf, 0.0]).double()
        q = self.laws[free].reshape(3, 3)
        mass = q[prefix[0]] if prefix else q.sum(1)
        return torch.cat([mass / mass.sum(), torch.zeros(1).double()]).log()

    def __call__(self, batch: SequenceBatch, time: Tensor | None) -> Tensor:
        found = torch.zeros(*batch.tokens.shape, 4, dtype=torch.float64)
        rows = zip(batch.tokens.tolist(), batch.layout.lengths.tolist(), known(batch).tolist(), strict=True)
        for n, (row, length, given) in enumerate(rows):
            found[n, length - 1] = self.law(tuple(row[1:length]), not given)
        return found


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_chains_have_the_law_of_their_guided_tokens(weight: float) -> None:
    """4.11: and with w = 0 that is the class's own law."""
    chain = Chain()

    def step(prefix: tuple[int, ...]) -> Tensor:
        given, free = chain.law(prefix, False), chain.law(prefix, True)
        return ((1 + weight) * given - weight * free)[:3].softmax(-1)

    every = list(itertools.product(range(3), repeat=2))
    wanted = {(a, b): float(step(())[a] * step((a,))[b]) for a, b in every}
    if weight == 0:
        assert list(wanted.values()) == pytest.approx(CLASSES[0].q.tolist())
    process = Autoregressive(CLASSES[0].vocabulary, limit=3)
    assert fit(wanted, guided(process, chain, weight, 1500)) > LEAST_P


@pytest.mark.parametrize("source", ["mask", "uniform"])
def test_no_weight_draws_from_the_class(source: Any) -> None:
    """4.11: as steps become short; the error of 64 steps is far below what 3000 draws show."""
    process = MixtureFlow(CLASSES[0].vocabulary, source=source).double()
    wanted = {tuple(s): p for s, p in zip(CLASSES[0].sequences.tolist(), CLASSES[0].q.tolist(), strict=True)}
    found = guided(process, two_classes(source), 0.0, 3000, steps=64)
    assert fit(wanted, found) > LEAST_P
    # The classes are told apart by as many draws.
    assert fit({s: float(p) for s, p in zip(wanted, CLASSES[1].q, strict=True)}, found) < LEAST_P


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_one_masked_site_has_the_closed_form_at_any_number_of_steps(weight: float) -> None:
    given, free = torch.tensor([0.6, 0.3, 0.1]).double(), torch.tensor([0.3, 0.3, 0.4]).double()
    flat = lambda law: lambda batch, time: law.log().expand(*batch.tokens.shape, 3)  # noqa: E731
    process = MixtureFlow(CLASSES[0].vocabulary).double()
    mass = given ** (1 + weight) / free**weight
    wanted = {(v,): float(p) for v, p in enumerate(mass / mass.sum())}
    for steps in (1, 3):
        found = guided(process, either(flat(given), flat(free)), weight, 4000, length=1, steps=steps)
        assert fit(wanted, found) > LEAST_P


@pytest.mark.parametrize("weight", [-1.0, 0.0, 2.0])
def test_drifts_end_at_the_guided_mean(weight: float) -> None:
    """Two normals of one spread: the mixed velocity is that of the mean m_c + w (m_c - m_u)."""
    process, draws, shift = ToyDrift(VOCABULARY), 5000, 1.0
    lower = lambda batch, time: velocity(batch, time) - shift * velocity_of_mean(batch, time)  # noqa: E731
    noise = Noise.start(2, torch.arange(draws))
    start = replace(process.prior(torch.full((draws,), 1), noise), condition=torch.ones(draws, 1))
    sampler = Stepwise(5, guides=[ClassifierFree(weight)], context=context)
    rows = sampler.sample(process, either(velocity, lower), start, noise).tokens
    mean, variance = moments(process, 5)
    # How far a mean of 1 is reached by the same steps, and so a shift of the mean.
    reached = mean / MEAN
    found = torch.stack(rows)[:, 0, 0].numpy()
    assert kstest(found, norm(mean + weight * shift * reached, variance**0.5).cdf).pvalue > LEAST_P


def velocity_of_mean(batch: SequenceBatch, time: Tensor | None) -> Tensor:
    """What a mean of 1 adds to the velocity, which is affine in the mean, at any x."""
    zero = replace(batch, tokens=torch.zeros_like(batch.tokens))
    return velocity(zero, time) / MEAN


# --- with a decoding state --------------------------------------------------------------


def conditional_network(process: Process) -> BackboneNetwork:
    torch.manual_seed(0)
    pattern = [{"name": "attention", "heads": 2}, {"name": "min_gru"}]
    backbone = Backbone(VOCABULARY.total, process.outputs, 16, pattern, 2, process.attends, condition=2)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return BackboneNetwork(backbone.double().eval())


def decoded(sampler: Any, weight: float | None, rules: bool = False, count: int = 40) -> Samples:
    process, noise = Autoregressive(VOCABULARY, limit=6), Noise.start(5, torch.arange(count))
    start = process.prior(torch.zeros(count, dtype=torch.long), noise)
    start = replace(start, condition=torch.eye(2).double()[noise.sequences % 2])
    options = {} if weight is None else {"guides": [ClassifierFree(weight)], "context": context}
    asked = constraints("length:2..5", "forbid:AB") if rules else None
    with torch.no_grad():
        return sampler(**options).sample(process, conditional_network(process), start, noise, asked)


def tokens(samples: Samples) -> list[list[int]]:
    return [row.tolist() for row in samples.tokens]


def both_states_are_advanced() -> None:
    for rules in (False, True):
        for weight in (0.7, 3.0):
            assert tokens(decoded(Ancestral, weight, rules)) == tokens(decoded(Stepwise, weight, rules))


def no_weight_is_the_conditional_model() -> None:
    for sampler in (Ancestral, Stepwise):
        assert tokens(decoded(sampler, 0.0)) == tokens(decoded(sampler, None)) != tokens(decoded(sampler, 2.0))


def test_both_states_are_advanced() -> None:
    both_states_are_advanced()


def test_no_weight_is_the_conditional_model() -> None:
    no_weight_is_the_conditional_model()


def test_both_questions_are_counted() -> None:
    cached, whole = decoded(Ancestral, 1.0), decoded(Stepwise, 1.0)
    lengths = [len(row) + 1 for row in cached.tokens]
    assert whole.network_calls == cached.network_calls == 2 * max(lengths)
    assert whole.network_rows == 2 * sum(lengths)
    # Both classes begin once each, and so does what has no condition.
    assert cached.network_rows == 2 * sum(lengths) - 2 * len(lengths) + 2 + 1


def test_a_sequence_without_a_condition_is_refused() -> None:
    process, noise = Autoregressive(VOCABULARY), Noise.start(0, torch.arange(2))
    start = process.prior(torch.zeros(2, dtype=torch.long), noise)
    with pytest.raises(UserError, match="needs a condition to guide towards"):
        Ancestral(guides=[ClassifierFree()], context=context).sample(
            process, conditional_network(process), start, noise
        )


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_a_weight_is_finite(weight: float) -> None:
    with pytest.raises(ValueError, match="a finite number is needed"):
        ClassifierFree(weight)


def test_what_a_law_excludes_is_left_alone() -> None:
    given = torch.tensor([[0.0, -torch.inf, 1.0, 2.0]])
    free = torch.tensor([[1.0, 0.0, -torch.inf, 5.0]])
    for weight in (0.0, 3.0):
        found = append.Append(given).away_from(append.Append(free), weight).logits
        assert found.tolist() == [[-weight, -torch.inf, 1.0, 2.0 - 3 * weight]]


# --- planted faults ---------------------------------------------------------------------


def _never_away(logits: Tensor, other: Tensor, weight: float) -> Tensor:
    return logits + (weight - 1) * torch.where(logits == -torch.inf, 0.0, logits - other)


def _towards(logits: Tensor, other: Tensor, weight: float) -> Tensor:
    return logits - weight * torch.where(logits == -torch.inf, 0.0, logits - other)


def _keeps_the_condition(transition: Any, self: Any, given: Any, batch: SequenceBatch, *rest: Any) -> Any:
    return given.away_from(rest[2].model(batch.condition), self.strength)


def _behind(after: tuple[Tensor, State], self: Any, read: Tensor, state: State) -> tuple[Tensor, State]:
    """A state that is not advanced beyond its second token."""
    return (after[0], state) if int(state.position[0]) > 1 else after


MODULES = {"append": append, "mask": substitute, "uniform": substitute, "insert": insert, "edit": edit}
FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = {
    **{
        f"{fault}_{name}": (replaced(module, "contrast", change), lambda n=name: steps_have_the_guided_kernel(n))
        for name, module in MODULES.items()
        for fault, change in (("off_by_one", _never_away), ("sign", _towards))
    },
    "still_conditional": (
        patched(ClassifierFree, "reweight", _keeps_the_condition),
        lambda: steps_have_the_guided_kernel("append"),
    ),
    "one_state_stands": (patched(BackboneNetwork, "step", _behind), both_states_are_advanced),
    "weight_has_a_floor": (
        replaced(append, "contrast", lambda logits, other, weight: contrast(logits, other, max(weight, 0.5))),
        no_weight_is_the_conditional_model,
    ),
    "drift_sign": (
        replaced(
            Drift, "away_from", lambda self, other, weight: replace(self, velocity=self.velocity - other.velocity)
        ),
        lambda: test_drifts_end_at_the_guided_mean(2.0),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law = FAULTS[name]
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()

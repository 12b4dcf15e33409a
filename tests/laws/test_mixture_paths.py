"""What holds of every process on a mixture path, with every source that needs no pairs; each law with planted faults.

Fixed tokens, fields, constraints, guides, layouts and precisions, all through the one kind of step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jaxtyping
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from core.data.layout import Layout
from core.data.noise import Noise, draw
from core.data.packing import pack, packed_layout, unpack
from core.data.sequence_batch import SequenceBatch
from core.decoding.stepwise import Stepwise
from core.guidance.constraint_set import ConstraintSet
from core.guidance.guides.base import GuideContext
from core.guidance.guides.classifier_free import ClassifierFree
from core.guidance.objectives.base import Scoreboard
from core.processes import _mixture_path, _resampling_path, mixture_flow
from core.processes._mixture_path import MixturePath
from core.processes._resampling_path import ResamplingPath
from core.processes.base import Network
from core.processes.schedules import registry as schedules
from tests.laws.toy_chains import EVERY, VOCABULARY, heads, made
from tests.laws.toy_faults import patched, replaced
from tests.laws.toy_kinds import accepts, constraints
from tests.laws.toys import batch_of, neighbours, site_kernel

LEAST_P, STEPS = 1e-5, 6  # frozen
NETWORK = neighbours(VOCABULARY, 3)
LENGTHS = torch.tensor([3, 1, 0, 5, 4])
every_path = pytest.mark.parametrize(("key", "source"), EVERY)
SCHEDULES = {
    **{key: schedules.get(key) for key in schedules.keys()},
    "root": lambda: schedules.get("polynomial")(0.5),  # infinite slope at 0
    "cube": lambda: schedules.get("polynomial")(3.0),  # no slope at 0
}


def by_site(batch: SequenceBatch, time: Tensor | None) -> Tensor:
    """An answer from a site's own id and time, the same in any layout."""
    sites = batch.tokens.flatten(1)
    said = TABLE[0][sites]
    return said if time is None else said + time.to(said)[..., None] * TABLE[1][sites]


TABLE = torch.randn(2, VOCABULARY.total, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def rows_of(process: MixturePath, network: Network, start: SequenceBatch, noise: Noise, **options: Any) -> list:
    rules = options.pop("rules", None)
    samples = Stepwise(STEPS, **options).sample(process, network, start, noise, rules)
    return [row.tolist() for row in samples.tokens]


def begun(process: MixturePath, draws: int, length: int = 3, held: int | None = None) -> tuple[SequenceBatch, Noise]:
    """Noise, the first token fixed to `held`."""
    noise = Noise.start(3, torch.arange(draws))
    start = process.prior(torch.full((draws,), length), noise)
    if held is None:
        return start, noise
    fixed = torch.zeros_like(start.tokens, dtype=torch.bool)
    fixed[:, 0] = True
    return replace(start, tokens=torch.where(fixed, held, start.tokens), fixed=fixed), noise


# --- fixed tokens and fields ------------------------------------------------------------


def fixed_tokens_never_move(key: str, source: str) -> None:
    """Whatever the network says of them, with a corrector too; they cost nothing, and the network is told that
    they show data."""
    process, times = made(key, source), []

    def watched(batch: SequenceBatch, time: Tensor | None) -> Tensor:
        times.append(time)
        return NETWORK(batch, time)

    start, noise = begun(process, 400, held=2)
    for corrector in (0.0, 3.0):
        rows = rows_of(process, watched, start, noise, corrector=corrector)
        assert {row[0] for row in rows} == {2} and {row[1] for row in rows} == {0, 1, 2}
    if process.timed:
        assert all(bool((time[:, 0] == 1).all()) and bool((time[:, 1] < 1).all()) for time in times)
    clean = replace(start, tokens=torch.tensor(rows))
    loss = process.loss(NETWORK, clean, noise)
    assert not loss.values[:, 0].any() and bool(loss.values[:, 1].any())
    held = replace(clean, fixed=torch.ones_like(clean.tokens, dtype=torch.bool))
    assert torch.equal(process.corrupt(held, torch.zeros(400, 3), noise).tokens, clean.tokens)
    cost = process.likelihood(NETWORK, held, noise, 4).nll - process.length_prior.nll(held.layout.lengths)
    assert not cost.any()


def fields_keep_to_their_tokens(key: str, source: str) -> None:
    """Start, path, steps and the optimum of the loss; a field's noise is the source's law on its own tokens."""
    support = torch.tensor([[True, True, False], [False, True, True]])
    process = made(key, source, support=support)
    draws = 6000
    start, noise = begun(process, draws, 2)
    assert start.tokens.shape == (draws, 2, 2)
    flat = lambda batch, time: torch.zeros(*batch.tokens.flatten(1).shape, 3, dtype=torch.float64)  # noqa: E731
    rows = torch.tensor(rows_of(process, flat, start, noise))
    clean = replace(start, tokens=rows)
    half = process.corrupt(clean, torch.full((draws, 4), 0.3), noise).tokens
    weights = torch.tensor([1.0, 2, 5]) if source == "marginal" else torch.ones(3)
    for field in range(2):
        drawn = torch.bincount(rows[:, :, field].flatten(), minlength=3)
        assert not drawn[~support[field]].any() and bool((drawn[support[field]] > 0).all())
        shown = {*half[:, :, field].flatten().tolist()} - {VOCABULARY.mask}
        assert shown == {*support[field].nonzero()[:, 0].tolist()}
        if source != "mask":
            first = torch.bincount(start.tokens[:, :, field].flatten(), minlength=3)[support[field]].double()
            law = weights[support[field]].double()
            assert chisquare(first.numpy(), (law / law.sum() * first.sum()).numpy()).pvalue > LEAST_P
    logits = torch.zeros(draws, 4, 3, dtype=torch.float64, requires_grad=True)
    loss = process.loss(lambda batch, time: logits, clean, noise)
    loss.mean().backward()
    assert bool(loss.values.isfinite().all()) and logits.grad is not None and bool(logits.grad.isfinite().all())
    assert not logits.grad[:, 0::2, 2].any() and not logits.grad[:, 1::2, 0].any()


@every_path
def test_fixed_tokens_never_move(key: str, source: str) -> None:
    fixed_tokens_never_move(key, source)


@every_path
def test_fields_keep_to_their_tokens(key: str, source: str) -> None:
    fields_keep_to_their_tokens(key, source)


# --- constraints and guides -------------------------------------------------------------

RULES = {
    "forbidden pair": ("forbid:AB",),
    "must contain": ("contains:C-A", "forbid:AB"),
    "composition": ("composition:AB:1..1:w=2",),
    "within": ("within:1:ABCAB",),
}


def constraints_hold(key: str, source: str, items: tuple[str, ...]) -> None:
    """Several sites jump at once, beside fixed ones, with a corrector; nothing is drawn and discarded."""
    rules, process = constraints(*items), made(key, source)
    start, noise = begun(process, 300, 5)
    assert not all(accepts(rules, row) for row in rows_of(process, NETWORK, start, noise))
    for corrector in (0.0, 2.0):
        rows = rows_of(process, NETWORK, start, noise, rules=rules, corrector=corrector)
        assert len(rows) == 300 and all(accepts(rules, row) for row in rows)
        assert len({tuple(row) for row in rows}) > 4
    held, noise = begun(process, 300, 5, held=0)
    rows = rows_of(process, NETWORK, held, noise, rules=rules)
    assert all(row[0] == 0 and accepts(rules, row) for row in rows)


def guided(key: str, source: str, weight: float | None, rules: ConstraintSet | None = None) -> list[list[int]]:
    """Runs of a network that says more zeros where the condition is 1, guided towards that."""
    process = made(key, source)
    start, noise = begun(process, 400)
    start = replace(start, condition=torch.ones(400, 1, dtype=torch.float64))

    def network(batch: SequenceBatch, time: Tensor | None) -> Tensor:
        assert batch.condition is not None
        asked = batch.condition.nan_to_num(0.0)[:, None]
        return NETWORK(batch, time) + asked * torch.tensor([1.0, 0, 0]).double()

    context = lambda model, noise: GuideContext(model, lambda rows: [], noise, Scoreboard([]))  # noqa: E731
    guides = [] if weight is None else [ClassifierFree(weight)]
    return rows_of(process, network, start, noise, guides=guides, context=context, rules=rules)


def guidance_goes_from_the_plain_law_towards_the_condition(key: str, source: str) -> None:
    """w = 0 is the unguided run to the last token; -1 the unconditional one; more of it, more zeros; rules hold."""
    zeros = lambda rows: sum(row.count(0) for row in rows)  # noqa: E731
    plain = guided(key, source, None)
    assert guided(key, source, 0.0) == plain
    found = [zeros(guided(key, source, weight)) for weight in (-1.0, 0.0, 2.0)]
    # Of 1,200 tokens.
    assert found[0] + 60 < found[1] and found[1] + 60 < found[2]
    process = made(key, source)
    assert found[0] == zeros(rows_of(process, NETWORK, *begun(process, 400)))
    rules = constraints("forbid:AB", "contains:C")
    assert all(accepts(rules, row) for row in guided(key, source, 2.0, rules))


@pytest.mark.parametrize("toy", RULES)
@every_path
def test_constraints_hold(key: str, source: str, toy: str) -> None:
    constraints_hold(key, source, RULES[toy])


@every_path
def test_guidance_goes_from_the_plain_law_towards_the_condition(key: str, source: str) -> None:
    guidance_goes_from_the_plain_law_towards_the_condition(key, source)


# --- layouts, batches, precisions -------------------------------------------------------


def packed_is_padded(key: str, source: str) -> None:
    """Corruption, cost, loss and likelihood, token by token; fields too; and a sequence alone."""
    for fields in ((), (2,)):
        process = made(key, source, support=torch.ones(2, 3, dtype=torch.bool) if fields else None)
        rows = torch.randint(3, (5, 5, *fields), generator=torch.Generator().manual_seed(1))
        fixed = torch.rand(rows.shape, generator=torch.Generator().manual_seed(2)) < 0.2
        padded = SequenceBatch(rows, Layout.padded(LENGTHS, 5), fixed=fixed)
        layout = packed_layout(padded.layout, 16)
        packed = SequenceBatch(
            pack(rows, padded.layout, 16), layout, fixed=pack(fixed.long(), padded.layout, 16).bool()
        )
        noise, here = Noise.start(2, torch.arange(5)), padded.layout.valid
        time = torch.full((5, 5 * (2 if fields else 1)), 0.4).double()
        again = process.corrupt(packed, torch.full((1, 16 * (2 if fields else 1)), 0.4).double(), noise).tokens
        assert torch.equal(unpack(again, layout, 5)[here], process.corrupt(padded, time, noise).tokens[here])
        one, other = (process.loss(by_site, batch, noise) for batch in (padded, packed))
        values = unpack(other.values.reshape(1, 16, -1), layout, 5)
        assert torch.allclose(values[here], one.values.reshape(5, 5, -1)[here], atol=1e-12)
        assert torch.equal(one.count, other.count)
        one, other = (process.likelihood(by_site, batch, noise, 6) for batch in (padded, packed))
        assert torch.allclose(one.nll, other.nll, atol=1e-9) and torch.allclose(one.error, other.error, atol=1e-9)
        some = torch.tensor([3])
        alone = process.likelihood(by_site, padded.select(some), noise.select(some), 6)
        assert torch.allclose(alone.nll, one.nll[3], atol=1e-9)


def equal_logits_give_equal_tokens(key: str, source: str) -> None:
    """In any precision: alone as in a batch, resumed as uninterrupted."""
    process = made(key, source)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        network = lambda batch, time, dtype=dtype: NETWORK(batch, time).to(dtype)  # noqa: E731
        start, noise = begun(process, 40)
        for rules in (None, constraints("forbid:AB")):
            whole = Stepwise(STEPS, trajectory=True).sample(process, network, start, noise, rules)
            rows = [row.tolist() for row in whole.tokens]
            some = torch.tensor([30, 7])
            alone = rows_of(process, network, start.select(some), noise.select(some), rules=rules)
            assert alone == [rows[30], rows[7]]
            rest = Stepwise(STEPS).sample(process, network, whole.trajectory[2], noise, rules, first=3)
            assert [row.tolist() for row in rest.tokens] == rows


@every_path
def test_packed_is_padded(key: str, source: str) -> None:
    packed_is_padded(key, source)


@every_path
def test_equal_logits_give_equal_tokens(key: str, source: str) -> None:
    equal_logits_give_equal_tokens(key, source)


# --- 4.19: borders ----------------------------------------------------------------------


def kernels_stay_kernels(key: str, source: str, make: Callable[[], Any]) -> None:
    """Rows sum to 1 and hold no NaN at both ends of time, whatever the slope there; nothing is left at the end."""
    tokens = [*range(3)] + ([VOCABULARY.mask] if source == "mask" else [])
    states = torch.cartesian_prod(torch.tensor(tokens), torch.tensor(tokens))
    batch = batch_of(states)
    times = ((0.0, 1e-9), (0.0, 0.5), (0.0, 1.0), (0.5, 0.5), (1 - 1e-9, 1.0), (1.0, 1.0))
    for (t, s), head in itertools.product(times, heads(key)):
        process = made(key, source, schedule=make(), **head)
        transition = process.transition(NETWORK, batch, t, s)
        jump, log_law = transition.law(batch, torch.arange(len(states)))
        kernel = site_kernel(states, jump, log_law.exp(), VOCABULARY.total)
        assert bool((kernel >= 0).all()) and bool((jump <= 1).all())
        assert torch.allclose(kernel.sum(-1), torch.ones(states.shape).double(), atol=1e-12)
        assert s < 1 or torch.equal(jump, (transition.settled < 0).double())
        assert (t, s) != (0.5, 0.5) or not jump.any()
    grid = process.grid(7)
    assert len(grid) == 7 and grid[0][0] == 0 and grid[-1][1] == 1 and all(t < s for t, s in grid)
    assert all(before[1] == after[0] for before, after in zip(grid, grid[1:], strict=False))


def costs_stay_finite(key: str, source: str, make: Callable[[], Any]) -> None:
    """Values and gradients next to both ends of the path, and with answers as sure as they get."""
    clean = torch.tensor([[0, 1], [2, 2]])
    fixed = torch.tensor([[True, False], [True, True]])
    noisy = torch.full_like(clean, VOCABULARY.mask) if source == "mask" else clean.flip(1)
    places = (0.0, 1e-12, 0.5, 1 - 1e-9)
    for scale, place, head in itertools.product((1.0, 3000.0), places, heads(key)):
        process = made(key, source, schedule=make(), **head)
        logits = scale * torch.randn(2, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        logits.requires_grad_()
        at = torch.full(clean.shape, place, dtype=torch.float64)
        found = process.integrand(lambda *_: logits, batch_of(clean, fixed), batch_of(noisy, fixed), at)  # noqa: B023
        (gradient,) = torch.autograd.grad((found[0] + found[1]).sum(), logits)
        assert bool(found[0].isfinite().all()) and bool(gradient.isfinite().all())
        assert not found[0][fixed].any() and not gradient[fixed].any() and bool((found[0] > -1e-3).all())


@pytest.mark.parametrize("name", SCHEDULES)
@every_path
def test_kernels_stay_kernels(key: str, source: str, name: str) -> None:
    kernels_stay_kernels(key, source, SCHEDULES[name])


@pytest.mark.parametrize("name", SCHEDULES)
@every_path
def test_costs_stay_finite(key: str, source: str, name: str) -> None:
    costs_stay_finite(key, source, SCHEDULES[name])


@every_path
def test_empty_and_single_sequences(key: str, source: str) -> None:
    process, lengths = made(key, source), torch.tensor([0, 1, 3])
    noise = Noise.start(0, torch.arange(3))
    batch = SequenceBatch(torch.zeros(3, 3, dtype=torch.long), Layout.padded(lengths, 3))
    assert bool(torch.isfinite(process.loss(by_site, batch, noise).mean()))
    assert [len(row) for row in rows_of(process, by_site, process.prior(lengths, noise), noise)] == [0, 1, 3]
    nothing = batch.select(torch.tensor([0])).narrowed(0)
    assert float(process.loss(by_site, nothing, noise.select(torch.tensor([0]))).mean()) == 0
    assert not process.likelihood(by_site, nothing, noise.select(torch.tensor([0])), 4).error.any()


def test_unknown_options_are_refused() -> None:
    for key, source, options in (
        ("d3pm", "coupled", {}),
        ("d3pm", "mask", {"timesteps": 0}),
        ("d3pm", "mask", {"auxiliary": -0.1}),
        ("d3pm", "mask", {"auxiliary": float("nan")}),
        ("udlm", "uniform", {"parametrisation": "both"}),
    ):
        with pytest.raises((ValueError, jaxtyping.TypeCheckError)):
            made(key, source, **options)


# --- planted faults ---------------------------------------------------------------------


def _fixed_forgotten(patch: pytest.MonkeyPatch) -> None:
    true = MixturePath._settled
    patch.setattr(MixturePath, "_settled", lambda self, batch: true(self, replace(batch, fixed=None)))


def _everything_moves(patch: pytest.MonkeyPatch) -> None:
    for module in (_mixture_path, _resampling_path, mixture_flow):
        replaced(module, "moving", lambda batch: torch.ones_like(batch.tokens, dtype=torch.bool))(patch)


def _fixed_told_as_noisy(patch: pytest.MonkeyPatch) -> None:
    true = MixturePath._log_answer
    patch.setattr(
        MixturePath, "_log_answer", lambda self, net, batch, kappa: true(self, net, replace(batch, fixed=None), kappa)
    )


def _fields_forgotten(patch: pytest.MonkeyPatch) -> None:
    def answer(self: MixturePath, network: Network, batch: SequenceBatch, kappa: Tensor) -> Tensor:
        return network(batch, kappa if self.timed else None).log_softmax(-1)

    patch.setattr(MixturePath, "_log_answer", answer)


def _unruled(patch: pytest.MonkeyPatch) -> None:
    def alone(self: ConstraintSet, law: Tensor, lengths: Tensor, uniform: Tensor, settled: Tensor) -> Tensor:
        return torch.where(settled < 0, draw(law, uniform), settled)

    patch.setattr(ConstraintSet, "draw", alone)


def _guide_takes_the_other_side(patch: pytest.MonkeyPatch) -> None:
    true = ClassifierFree.__init__
    patch.setattr(ClassifierFree, "__init__", lambda self, weight=1.0: true(self, -weight))


def _time_of_the_first_row(patch: pytest.MonkeyPatch) -> None:
    true = _mixture_path.per_site
    replaced(_mixture_path, "per_site", lambda batch, values: true(batch, values)[..., :1] + 0 * true(batch, values))(
        patch
    )


def _noise_by_the_place_in_the_batch(patch: pytest.MonkeyPatch) -> None:
    true = Noise.bits
    patch.setattr(Noise, "bits", lambda self, *a: true(replace(self, sequences=torch.arange(len(self.sequences))), *a))


def _something_is_left(patch: pytest.MonkeyPatch) -> None:
    patched(ResamplingPath, "_jump", lambda found, *asked: 0.99 * found)(patch)


def _a_share_too_many(patch: pytest.MonkeyPatch) -> None:
    patched(ResamplingPath, "_jump", lambda found, *asked: found * 1.5)(patch)


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[..., None], tuple[Any, ...]]] = {
    "everything_moves": (_everything_moves, fixed_tokens_never_move, ()),
    "fields_forgotten": (_fields_forgotten, fields_keep_to_their_tokens, ()),
    "unruled": (_unruled, constraints_hold, (RULES["must contain"],)),
    "guide_takes_the_other_side": (
        _guide_takes_the_other_side,
        guidance_goes_from_the_plain_law_towards_the_condition,
        (),
    ),
    "time_of_the_first_row": (_time_of_the_first_row, packed_is_padded, ()),
    "noise_by_the_place_in_the_batch": (_noise_by_the_place_in_the_batch, equal_logits_give_equal_tokens, ()),
}


@pytest.mark.parametrize("name", FAULTS)
@every_path
def test_planted_faults_are_caught(key: str, source: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law, more = FAULTS[name]
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law(key, source, *more)


TIMED = [(key, source) for key, source in EVERY if source != "mask"]
RESAMPLED = [(key, source) for key, source in EVERY if isinstance(made(key, source), ResamplingPath)]


# A masked path leaves what it shows alone, fixed or not.
@pytest.mark.parametrize("fault", [_fixed_forgotten, _fixed_told_as_noisy])
@pytest.mark.parametrize(("key", "source"), TIMED)
def test_planted_faults_of_fixed_tokens_are_caught(
    key: str, source: str, fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        fixed_tokens_never_move(key, source)


@pytest.mark.parametrize("fault", [_something_is_left, _a_share_too_many])
@pytest.mark.parametrize(("key", "source"), RESAMPLED)
def test_planted_faults_of_the_ends_are_caught(
    key: str, source: str, fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        kernels_stay_kernels(key, source, SCHEDULES["polynomial"])


@pytest.mark.parametrize("law", [kernels_stay_kernels, costs_stay_finite])
def test_planted_fault_nothing_below_a_fraction_is_caught(law: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    replaced(_resampling_path, "_TINY", 0.0)(monkeypatch)
    with pytest.raises(AssertionError):
        law("d3pm", "marginal", SCHEDULES["cube"])

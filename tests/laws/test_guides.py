"""Laws of every guide: each registered one, and a toy that tilts each kind of transition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.stepwise import Stepwise
from core.errors import UserError
from core.guidance.guides import registry as guides
from core.guidance.guides._sites import Sites
from core.guidance.guides.base import Guide, GuideContext
from core.guidance.objectives.base import Scoreboard
from core.processes.transitions.append import Append
from core.processes.transitions.drift import Drift
from core.processes.transitions.substitute import Substitute
from tests.laws.toy_drift import velocity
from tests.laws.toy_kinds import DRAWS, KINDS, accepts, fit, outcomes
from tests.laws.toy_objectives import Share, board, two_letters
from tests.laws.toy_runs import NAMES, Favour, Run, rules_for

LEAST_P = 1e-5  # frozen
IDS = torch.arange(24)


Make = Callable[[float], Guide]


# Settings without which a member does nothing on the toys: three letters are too few for the released flag.
SETTINGS = {"mog_released": {"is_peptide": False}}


def registered(key: str, member: type[Guide]) -> Make:
    """A member with its own settings, but for the strength."""

    def make(strength: float) -> Guide:
        guide = member(**SETTINGS.get(key, {}))
        guide.strength = strength
        return guide

    return make


KIND_OF = {name: Drift if name == "drift" else type(KINDS[name]().transition()) for name in NAMES}
# Every registered guide beside the toy.
GUIDES: dict[str, Make] = {"favour": Favour, **{key: registered(key, kind) for key, kind in guides.members().items()}}
PAIRS = [
    (guide, name)
    for guide in GUIDES
    for name in NAMES
    if KIND_OF[name] in GUIDES[guide](1.0).supports
    # All that score read fields in one way.
    and (name != "fields" or guide == "mog" or not GUIDES[guide](1.0).scoring)
]
SCORING = [(guide, name) for guide, name in PAIRS if GUIDES[guide](1.0).scoring]


def no_strength_is_the_unguided_run(name: str, make: Make = Favour) -> None:
    """To the last bit at 0, and reached continuously: tokens stay, numbers move by as little."""
    plain = Run(name, conditional=True).sequences(IDS)
    assert Run(name, [make(0.0)], conditional=True).sequences(IDS) == plain
    nearly = Run(name, [make(1e-9)], conditional=True).sequences(IDS)
    if name == "drift":
        pairs = zip(nearly, plain, strict=True)
        assert all(torch.allclose(torch.tensor(a), torch.tensor(b), rtol=0, atol=1e-6) for a, b in pairs)
    else:
        assert nearly == plain
    assert Run(name, [make(2.0)], conditional=True).sequences(IDS) != plain


def guided_steps_have_the_tilted_kernel(name: str) -> None:
    """Every outcome is as likely as e^(strength times the zeros chosen) makes it."""
    kind, strength = KINDS[name](), 0.8
    tilt = torch.zeros_like(kind.weights)
    # The last outcome of an insertion is to stop; all others count through the tokens.
    zeros = slice(0, -1, 3) if name == "insert" else slice(0, 1)
    tilt[..., zeros] = strength
    noise = Noise.start(3, torch.arange(DRAWS))
    context = GuideContext(lambda condition: kind.transition(DRAWS), lambda batch: [], noise, Scoreboard([]))
    step = Favour(strength).reweight(kind.transition(DRAWS), kind.batch.fork(DRAWS), *kind.times, context)
    assert fit(kind.law(tilt), outcomes(kind, step)) > LEAST_P


def guided_rows_stand_alone(name: str, make: Make = Favour, strength: float = 1.5) -> None:
    for given in (None, rules_for(name)):
        run = Run(name, [make(strength)], given, conditional=True)
        together = run.sequences(IDS)
        assert [run.sequences(IDS[n : n + 1])[0] for n in range(0, 24, 5)] == together[::5]
        order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
        assert run.sequences(IDS[order]) == [together[n] for n in order.tolist()]
        assert replace(run, wide=3).sequences(IDS) == together


def guided_runs_obey_and_keep_what_is_fixed(name: str, make: Make = Favour) -> None:
    rules = rules_for(name)
    for strength in (-2.0, 2.0):
        run = Run(name, [make(strength)], rules, hold=True, conditional=True)
        for sequence in run.sequences(torch.arange(200)):
            if name == "drift":
                assert sequence[0][0] == 0.25 and all(rule.check(torch.tensor(sequence)) for rule in rules.constraints)
                continue
            flat = torch.tensor(sequence).flatten().tolist()
            assert accepts(rules, flat) and (2 in flat if name == "insert" else flat[0] == 2)


def guided_runs_move_the_statistic(name: str) -> None:
    """More of what is favoured, less of what is not, in whole runs."""
    found = []
    for strength in (-1.5, 0.0, 1.5):
        rows = [torch.tensor(row).flatten() for row in Run(name, [Favour(strength)]).sequences(torch.arange(600))]
        values = torch.cat(rows)
        found.append(float(values.mean() if name == "drift" else (values == 0).double().mean()))
    assert found[0] + 0.05 < found[1] < found[2] - 0.05


def utilities(sequences: list[list]) -> Tensor:
    """Mean share of each letter that the objectives of the toys seek."""
    texts = ["".join("ABC"[token] for token in torch.tensor(row).flatten().tolist()) for row in sequences]
    return torch.tensor(two_letters().score(texts)).mean(0)


def guided_runs_move_the_objectives(guide: str, name: str) -> None:
    """What all objectives gain together at a strength of 3, beyond chance: 300 rows have an error below 0.02."""
    ids = torch.arange(300)
    plain, guided = (utilities(Run(name, given).sequences(ids)) for given in ([], [GUIDES[guide](3.0)]))
    assert float((guided - plain).sum()) > 0.1


class Flat(Share):
    """One value for all sequences, NaN for none."""

    def __init__(self, value: float) -> None:
        super().__init__("A")
        self.value = value

    def score(self, sequences: Any) -> NDArray[np.float64]:
        return np.full(len(sequences), self.value)

    def gradient(self, sequences: Any) -> NDArray[np.float64]:
        return super().gradient(sequences) * (0.0 if np.isfinite(self.value) else np.nan)


def without_gains_nothing_is_guided(name: str, make: Make, value: float) -> None:
    """Objectives that say the same of all sequences, or nothing at all."""
    plain = Run(name).sequences(IDS)
    assert Run(name, [make(2.0)], scores=board(Flat(value), Flat(value))).sequences(IDS) == plain


def judge(law: str, guide: str, check: Callable[[], None]) -> None:
    """Run a check, which must fail for a member that says so."""
    if law in GUIDES[guide](1.0).broken_laws:
        with pytest.raises(AssertionError):
            check()
    else:
        check()


@pytest.mark.parametrize(("guide", "name"), PAIRS)
def test_no_strength_is_the_unguided_run(guide: str, name: str) -> None:
    judge("strength", guide, lambda: no_strength_is_the_unguided_run(name, GUIDES[guide]))


@pytest.mark.parametrize("name", KINDS)
def test_guided_steps_have_the_tilted_kernel(name: str) -> None:
    guided_steps_have_the_tilted_kernel(name)


@pytest.mark.parametrize(("guide", "name"), PAIRS)
def test_guided_rows_stand_alone(guide: str, name: str) -> None:
    judge("batch", guide, lambda: guided_rows_stand_alone(name, GUIDES[guide]))


@pytest.mark.parametrize(("guide", "name"), PAIRS)
def test_guided_runs_obey_and_keep_what_is_fixed(guide: str, name: str) -> None:
    guided_runs_obey_and_keep_what_is_fixed(name, GUIDES[guide])


@pytest.mark.parametrize("name", NAMES)
def test_guided_runs_move_the_statistic(name: str) -> None:
    guided_runs_move_the_statistic(name)


@pytest.mark.parametrize(("guide", "name"), SCORING)
def test_guided_runs_move_the_objectives(guide: str, name: str) -> None:
    guided_runs_move_the_objectives(guide, name)


@pytest.mark.parametrize("value", [0.5, float("nan")])
@pytest.mark.parametrize(("guide", "name"), SCORING)
def test_without_gains_nothing_is_guided(guide: str, name: str, value: float) -> None:
    judge("strength", guide, lambda: without_gains_nothing_is_guided(name, GUIDES[guide], value))


def test_a_guide_that_scores_needs_objectives() -> None:
    with pytest.raises(UserError, match="Mog needs objectives to guide by"):
        Run("mask", [GUIDES["mog"](1.0)], scores=Scoreboard([])).sequences(IDS)


@pytest.mark.parametrize("name", NAMES)
def test_a_kind_that_a_guide_cannot_tilt_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = KIND_OF[name]
    monkeypatch.setattr(Favour, "supports", Favour.supports - {own})
    with pytest.raises(ValueError, match=f"Favour cannot tilt a {own.__name__}"):
        Run(name, [Favour()]).sequences(IDS)


def test_guides_need_a_context() -> None:
    with pytest.raises(ValueError, match="guides need a context"):
        Stepwise(guides=[Favour()])


def test_proposals_that_a_guide_sees_are_those_drawn() -> None:
    """One proposal far ahead of the others is the one taken."""
    run, noise = Run("drift"), Noise.start(1, torch.arange(50))
    batch = run.start(noise)
    process, _ = run.parts()
    step = process.transition(velocity, batch, 0.25, 0.5)
    assert isinstance(step, Drift)
    seen = step.candidates(batch, noise)
    best = seen[:, :, 0, 0].argmax(1)
    after = step.tilted(1e6 * seen[:, :, 0, 0]).draw(batch, noise, None, None).batch.tokens
    assert torch.equal(after, seen[torch.arange(50), best])


# --- planted faults ---------------------------------------------------------------------


class Crowd(Favour):
    """Looks at how many rows there are."""

    def reweight(self, transition: Any, batch: SequenceBatch, t: float, s: float, context: GuideContext) -> Any:
        return Favour(self.strength * batch.layout.count / 24).reweight(transition, batch, t, s, context)


def _twice(patch: pytest.MonkeyPatch) -> None:
    true = Append.tilted
    patch.setattr(Append, "tilted", lambda self, weights: true(self, 2 * weights))


def _stays_untilted(patch: pytest.MonkeyPatch) -> None:
    true = Substitute.law
    patch.setattr(Substitute, "law", lambda self, batch, rows: (self.jump[rows], true(self, batch, rows)[1]))


def _standing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Favour, "__init__", lambda self, strength=1.0: setattr(self, "strength", strength + 0.5))


def _backwards(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Favour, "__init__", lambda self, strength=1.0: setattr(self, "strength", -strength))


def _unruled(patch: pytest.MonkeyPatch) -> None:
    true = Stepwise.sample
    patch.setattr(Stepwise, "sample", lambda self, process, network, start, noise, rules: true(
        self, process, network, start, noise
    ))  # fmt: skip


def _one_noise_for_all(patch: pytest.MonkeyPatch) -> None:
    true = Sites.of
    every = lambda noise: noise.select(0 * torch.arange(len(noise.sequences)))  # noqa: E731
    patch.setattr(Sites, "of", lambda step, batch, noise, *rest: true(step, batch, every(noise), *rest))


def _weightless(patch: pytest.MonkeyPatch) -> None:
    true = Sites.tilted
    patch.setattr(Sites, "tilted", lambda self, weights: true(self, 0 * weights))


def _leaning(patch: pytest.MonkeyPatch) -> None:
    true = Sites.tilted
    patch.setattr(Sites, "tilted", lambda self, weights: true(self, weights + torch.tensor([0.5, 0, 0])))


FAULTS = {
    **{
        f"{fault.__name__}_{guide}": (fault, lambda law=law, guide=guide: law(guide))
        for fault, law in (
            (_weightless, lambda guide: guided_runs_move_the_objectives(guide, "mask")),
            (_leaning, lambda guide: no_strength_is_the_unguided_run("uniform", GUIDES[guide])),
        )
        for guide in ("projection", "tchebycheff")
    },
    "one_noise_for_all": (
        _one_noise_for_all,
        lambda: guided_rows_stand_alone("uniform", GUIDES["projection"]),
    ),
    "strength_has_a_floor": (_standing, lambda: no_strength_is_the_unguided_run("edit")),
    "tilted_twice": (_twice, lambda: guided_steps_have_the_tilted_kernel("append")),
    "staying_is_not_tilted": (_stays_untilted, lambda: guided_steps_have_the_tilted_kernel("uniform")),
    "sign": (_backwards, lambda: guided_runs_move_the_statistic("insert")),
    **{f"unruled_{name}": (_unruled, lambda n=name: guided_runs_obey_and_keep_what_is_fixed(n)) for name in NAMES},
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law = FAULTS[name]
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()


@pytest.mark.parametrize("name", NAMES)
def test_a_guide_that_looks_at_the_batch_is_caught(name: str) -> None:
    with pytest.raises(AssertionError):
        guided_rows_stand_alone(name, Crowd, 3.0)

"""Laws of every guide, shown on a toy guide that tilts each kind of transition."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.stepwise import Stepwise
from core.guidance.guides.base import GuideContext
from core.guidance.objectives.base import Scoreboard
from core.processes.transitions.append import Append
from core.processes.transitions.drift import Drift
from core.processes.transitions.substitute import Substitute
from tests.laws.toy_drift import velocity
from tests.laws.toy_kinds import DRAWS, KINDS, accepts, fit, outcomes
from tests.laws.toy_runs import NAMES, Favour, Run, rules_for

LEAST_P = 1e-5  # frozen
IDS = torch.arange(24)


def no_strength_is_the_unguided_run(name: str) -> None:
    plain = Run(name).sequences(IDS)
    for strength in (0.0, 1e-9):
        assert Run(name, [Favour(strength)]).sequences(IDS) == plain
    assert Run(name, [Favour(2.0)]).sequences(IDS) != plain


def guided_steps_have_the_tilted_kernel(name: str) -> None:
    """Every outcome is as likely as e^(strength times the zeros chosen) makes it."""
    kind, strength = KINDS[name](), 0.8
    tilt = torch.zeros_like(kind.weights)
    # The last outcome of an insertion is to stop; all others count through the tokens.
    zeros = slice(0, -1, 3) if name == "insert" else slice(0, 1)
    tilt[..., zeros] = strength
    noise = Noise.start(3, torch.arange(DRAWS))
    context = GuideContext(lambda condition: torch.zeros(0), lambda batch: [], noise, Scoreboard([]))
    step = Favour(strength).reweight(kind.transition(DRAWS), kind.batch.fork(DRAWS), *kind.times, context)
    assert fit(kind.law(tilt), outcomes(kind, step)) > LEAST_P


def guided_rows_stand_alone(name: str, make: Callable[[], Favour] = lambda: Favour(1.5)) -> None:
    rules = rules_for(name)
    for given in (None, rules):
        together = Run(name, [make()], given).sequences(IDS)
        assert [Run(name, [make()], given).sequences(IDS[n : n + 1])[0] for n in range(0, 24, 5)] == together[::5]
        order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
        assert Run(name, [make()], given).sequences(IDS[order]) == [together[n] for n in order.tolist()]
        assert Run(name, [make()], given, wide=3).sequences(IDS) == together


def guided_runs_obey_and_keep_what_is_fixed(name: str) -> None:
    rules = rules_for(name)
    for strength in (-2.0, 2.0):
        for sequence in Run(name, [Favour(strength)], rules, hold=True).sequences(torch.arange(200)):
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


@pytest.mark.parametrize("name", NAMES)
def test_no_strength_is_the_unguided_run(name: str) -> None:
    no_strength_is_the_unguided_run(name)


@pytest.mark.parametrize("name", KINDS)
def test_guided_steps_have_the_tilted_kernel(name: str) -> None:
    guided_steps_have_the_tilted_kernel(name)


@pytest.mark.parametrize("name", NAMES)
def test_guided_rows_stand_alone(name: str) -> None:
    guided_rows_stand_alone(name)


@pytest.mark.parametrize("name", NAMES)
def test_guided_runs_obey_and_keep_what_is_fixed(name: str) -> None:
    guided_runs_obey_and_keep_what_is_fixed(name)


@pytest.mark.parametrize("name", NAMES)
def test_guided_runs_move_the_statistic(name: str) -> None:
    guided_runs_move_the_statistic(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_kind_that_a_guide_cannot_tilt_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Drift if name == "drift" else type(KINDS[name]().transition())
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


FAULTS = {
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
        guided_rows_stand_alone(name, lambda: Crowd(3.0))

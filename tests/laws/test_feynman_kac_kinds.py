"""Laws of Feynman-Kac steering on every kind of step, with planted faults."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from core.decoding import feynman_kac
from core.decoding._cloud import Cloud
from core.decoding._walk import Road, Walk
from core.decoding.feynman_kac import FeynmanKac
from core.decoding.stepwise import Stepwise
from core.errors import UserError
from core.processes.continuous_flow import ContinuousFlow
from core.tokenizers.base import Vocabulary
from tests.laws.toy_aims import Aims, run_of, short, zeros
from tests.laws.toy_kinds import accepts
from tests.laws.toy_runs import NAMES, Favour, Run, rules_for

SIGMAS = 4.0  # frozen
IDS = torch.arange(24)


def sampler(aims: Aims, **options: Any) -> FeynmanKac:
    settings = {"particles": 4, "strength": 1.0, "steps": 4, "every": 1, "draws": 2, "threshold": 0.8}
    return FeynmanKac(**{**settings, **options}, context=aims)


def every_kind_has_its_normaliser(name: str) -> None:
    """The mean of exp(u) over plain draws from other noise, in nats on either side."""
    run, ids = Run(name), torch.arange(800)
    with_rules = Run(name, rules=rules_for(name))
    for given in (run, with_rules):
        found = run_of(sampler(Aims(zeros)), given, ids).particles
        plain = run_of(Stepwise(4), given, ids + 10_000)
        assert found is not None
        plainly = torch.tensor([math.exp(zeros(tuple(row.flatten().tolist()))) for row in plain.tokens])
        one, other = found.log_normalisers.exp(), plainly.double()
        error = float((one.var() / len(one) + other.var() / len(other)).sqrt())
        assert abs(float(one.mean() - other.mean())) < SIGMAS * error


def rows_stand_alone(name: str) -> None:
    for rules in (None, rules_for(name)):
        run = Run(name, rules=rules)
        draw = lambda ids, run=run: run_of(sampler(Aims(zeros, short), spread=True), run, ids)  # noqa: E731
        together = draw(IDS)
        assert together.particles is not None
        weights = together.particles.log_weights
        for rows in (torch.arange(24).flip(0), torch.tensor([5]), torch.tensor([17, 3])):
            part = draw(IDS[rows])
            assert part.particles is not None
            assert torch.equal(part.particles.log_weights, weights[rows])
            assert [row.tolist() for row in part.tokens] == [together.tokens[n].tolist() for n in rows.tolist()]
        wide = run_of(sampler(Aims(zeros, short), spread=True), Run(name, rules=rules, wide=3), IDS)
        assert [row.tolist() for row in wide.tokens] == [row.tolist() for row in together.tokens]


def all_that_is_drawn_obeys(name: str) -> None:
    """What comes out, every particle, and every completion that was looked at; and what is fixed stays."""
    rules, aims = rules_for(name), Aims(zeros)
    run = Run(name, rules=rules, hold=True)
    samples = run_of(sampler(aims, strength=3.0), run, torch.arange(100))
    assert samples.particles is not None and len(samples.tokens) == 100
    particles = [tuple(row.flatten().tolist()) for rows in samples.particles.tokens for row in rows]
    assert set(particles) <= set(aims.asked)
    for sequence in aims.asked:
        if name == "drift":
            numbers = torch.tensor(sequence).reshape(-1, 2)
            assert sequence[0] == 0.25 and all(rule.check(numbers) for rule in rules.constraints)
        else:
            assert accepts(rules, sequence) and (2 in sequence if name == "insert" else sequence[0] == 2)


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_has_its_normaliser(name: str) -> None:
    every_kind_has_its_normaliser(name)


@pytest.mark.parametrize("name", NAMES)
def test_rows_stand_alone(name: str) -> None:
    rows_stand_alone(name)


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_drawn_obeys(name: str) -> None:
    all_that_is_drawn_obeys(name)


@pytest.mark.parametrize("name", NAMES)
def test_one_particle_is_the_plain_run(name: str) -> None:
    """To the last bit, whatever the strength; and its weight is exp(strength u)."""
    for rules in (None, rules_for(name)):
        run = Run(name, rules=rules)
        samples = run_of(sampler(Aims(zeros), particles=1, strength=2.0), run, IDS)
        assert [row.tolist() for row in samples.tokens] == run.sequences(IDS)
        assert samples.particles is not None
        values = [2 * zeros(tuple(row.flatten().tolist())) for row in samples.tokens]
        assert samples.particles.log_normalisers.tolist() == pytest.approx(values)


@pytest.mark.parametrize("name", ["mask", "append", "edit"])
def test_guides_are_part_of_the_law(name: str) -> None:
    """Steering goes on from where the guides lead: with one particle to the last bit."""
    run, guides = Run(name, [Favour(1.5)]), [Favour(1.5)]
    samples = run_of(sampler(Aims(zeros), particles=1, guides=guides), run, IDS)
    assert [row.tolist() for row in samples.tokens] == run.sequences(IDS) != Run(name).sequences(IDS)


# --- sequences without a value ----------------------------------------------------------


def test_sequences_without_a_value_never_come_out() -> None:
    """Nor one whose value is infinite."""
    value = lambda x: {0: math.nan, 1: math.inf}.get(x[0], 1.0)  # noqa: E731
    for draws in (0, 1, 3):
        samples = run_of(sampler(Aims(value), particles=16, draws=draws), Run("mask"), torch.arange(200))
        assert samples.particles is not None
        steered = samples.particles.log_normalisers > -math.inf
        assert all(int(row[0]) == 2 for row, able in zip(samples.tokens, steered.tolist(), strict=True) if able)
        assert int(steered.sum()) > 100


@pytest.mark.parametrize("name", ["mask", "append", "edit"])
def test_rows_in_which_nothing_has_a_value_go_on_unsteered(name: str) -> None:
    """They are told by a normaliser of 0, and drawn as without steering; others are as alone."""
    run = Run(name)
    samples = run_of(sampler(Aims(lambda x: math.nan)), run, IDS)
    assert samples.particles is not None
    assert bool((samples.particles.log_normalisers == -math.inf).all())
    assert [row.tolist() for row in samples.tokens] == run.sequences(IDS)


def test_each_distinct_sequence_is_asked_for_once() -> None:
    aims = Aims(zeros)
    run_of(sampler(aims), Run("mask"), torch.arange(50))
    assert len(aims.asked) == len(set(aims.asked)) == aims.board.calls


def test_completions_cost_no_second_question() -> None:
    """A step and the look ahead before it ask the network for the same rows, once."""
    looking, blind = (run_of(sampler(Aims(zeros), draws=n, threshold=0.0), Run("mask"), IDS) for n in (3, 0))
    assert looking.network_calls <= blind.network_calls + 1


def test_steps_that_leave_nothing_to_chance_are_refused() -> None:
    with pytest.raises(UserError, match="sampler=feynman_kac needs steps that draw, a continuous_flow's do not"):
        FeynmanKac().suits(ContinuousFlow(Vocabulary(0)))


# --- planted faults ---------------------------------------------------------------------


def _rows_in_the_choice(patch: pytest.MonkeyPatch) -> None:
    true = Cloud.resampled
    patch.setattr(Cloud, "resampled", lambda self, threshold, u: true(self, threshold, (u + 0.1 * len(u)) % 1))


def _unruled(patch: pytest.MonkeyPatch) -> None:
    true = Road.__init__
    patch.setattr(Road, "__init__", lambda self, a, b, c, rules: true(self, a, b, c, None))


def _unruled_ahead(patch: pytest.MonkeyPatch) -> None:
    true = feynman_kac.completed

    def loose(walk: Walk, *arguments: Any) -> Any:
        rules, walk.road.constraints = walk.road.constraints, None
        found = true(walk, *arguments)
        walk.road.constraints = rules
        return found

    patch.setattr(feynman_kac, "completed", loose)


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[str], None]]] = {
    "rows_in_the_choice": (_rows_in_the_choice, rows_stand_alone),
    "unruled": (_unruled, all_that_is_drawn_obeys),
    "unruled_ahead": (_unruled_ahead, all_that_is_drawn_obeys),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_planted_faults_are_caught(name: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, law = FAULTS[fault]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        law(name)

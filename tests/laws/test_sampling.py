"""Laws of whole flow runs, against an enumeration that shares no code with the process."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.data.noise import Noise, draw
from core.data.sequence_batch import SequenceBatch
from core.decoding.stepwise import Stepwise
from core.guidance.constraint_set import ConstraintSet
from core.processes.base import Network
from core.processes.mixture_flow import MixtureFlow
from core.processes.schedules import registry as schedules
from core.processes.schedules.base import Schedule
from core.processes.transitions.substitute import Substitute
from tests.laws.toy_kinds import accepts, constraints, fit
from tests.laws.toys import ToyLaw, kernel_matrix, neighbours

SOURCES: tuple[Any, ...] = ("mask", "uniform")
DRAWS, STEPS = 40_000, 4
LEAST_P = 1e-5  # frozen
HELD = 1  # the token of a fixed first site


def beginning(law: ToyLaw, source: str, states: Tensor, hold: bool) -> Tensor:
    """The law of the start over the states."""
    free = states[:, 1:] if hold else states
    fits = (free == law.vocabulary.mask).all(1) if source == "mask" else (free >= 0).all(1)
    if hold:
        fits = fits & (states[:, 0] == HELD)
    return fits.double() / fits.sum()


def posterior_weight(law: ToyLaw, source: str, kappa: float, states: Tensor, hold: bool) -> Tensor:
    """q(x1) p(x_t | x1), `[T, Q]`; a fixed site shows data. Masked states say the same at any kappa."""
    sites = torch.full((states.shape[1],), kappa if source == "uniform" else 0.5, dtype=torch.float64)
    sites[0] = 1.0 if hold else sites[0]
    return law.path(source, sites, states) * law.q


def definition(law: ToyLaw, source: str, hold: bool = False) -> list[dict[tuple[int, ...], float]]:
    """What each of STEPS steps of the exact kernel with the exact posterior gives, from the definition alone.

    Steps are equal in kappa, so the schedule plays no part: a site that is not settled jumps with
    probability (kappa_s - kappa_t) / (1 - kappa_t), to a token of q given the shown state.
    """
    size, mask, states = law.vocabulary.size, law.vocabulary.mask, law.states(source)
    now, found = beginning(law, source, states, hold), []
    for step in range(STEPS):
        kappa, after = step / STEPS, (step + 1) / STEPS
        jump = (after - kappa) / (1 - kappa)
        weight = posterior_weight(law, source, kappa, states, hold)
        hot = torch.nn.functional.one_hot(law.sequences, size).double()
        total = weight.sum(1, keepdim=True).clamp_min(1e-300)
        posterior = torch.einsum("tq,qlv->tlv", weight / total, hot)
        kernel = torch.ones(len(states), len(states), dtype=torch.float64)
        for site in range(states.shape[1]):
            shown = states[:, site]
            settled = (shown != mask) if source == "mask" else torch.zeros_like(shown, dtype=torch.bool)
            settled = settled | (hold and site == 0)
            chance = torch.where(settled, 0.0, jump).double()
            moves = torch.zeros(len(states), law.vocabulary.total, dtype=torch.float64)
            moves[:, :size] = chance[:, None] * posterior[:, site]
            moves[torch.arange(len(states)), shown] += 1 - chance
            kernel *= moves[:, shown]
        now = now @ kernel
        found.append(dict(zip(map(tuple, states.tolist()), now.tolist(), strict=True)))
    return found


def drawn(
    law: ToyLaw, process: MixtureFlow, hold: bool = False, network: Network | None = None
) -> list[list[tuple[int, ...]]]:
    """The states of DRAWS runs after each step."""
    noise = Noise.start(11, torch.arange(DRAWS))
    start = process.prior(torch.full((DRAWS,), law.sequences.shape[1]), noise)
    if hold:
        fixed = torch.zeros_like(start.tokens, dtype=torch.bool)
        fixed[:, 0] = True
        start = replace(start, tokens=torch.where(fixed, HELD, start.tokens), fixed=fixed)
    network = network or law.network(process.source)
    samples = Stepwise(STEPS, trajectory=True).sample(process, network, start, noise)
    assert torch.equal(torch.stack(samples.tokens), samples.trajectory[-1].tokens)
    return [[tuple(row) for row in batch.tokens.tolist()] for batch in samples.trajectory]


def runs_follow_the_definition(source: Any, schedule: Schedule | None = None) -> None:
    """4.5: the sampler's law."""
    law = ToyLaw(seed=2)
    process = MixtureFlow(law.vocabulary, source=source, schedule=schedule).double()
    for wanted, found in zip(definition(law, source), drawn(law, process), strict=True):
        assert fit(wanted, found) > LEAST_P


def fixed_tokens_never_move(source: Any) -> None:
    """4.17: and the other sites follow the law of a run in which they never did."""
    law = ToyLaw(seed=3)
    process = MixtureFlow(law.vocabulary, source=source).double()
    path, other = drawn(law, process, hold=True), drawn(law, process, True, neighbours(law.vocabulary, 3))
    # Whatever the network says of the fixed site.
    assert {row[0] for rows in (*path, *other) for row in rows} == {HELD}
    for wanted, found in zip(definition(law, source, hold=True), path, strict=True):
        assert fit(wanted, found) > LEAST_P
    if source == "mask":
        given = law.q[law.sequences[:, 0] == HELD]
        wanted = dict(zip(((HELD, v) for v in range(3)), (given / given.sum()).tolist(), strict=True))
        assert fit(wanted, path[-1]) > LEAST_P


def infilling_tends_to_the_conditional(source: Any, length: int = 3) -> None:
    """4.17: the law is q given the fixed token, at the rate of 1 / steps for several free sites."""
    law = ToyLaw(length=length, seed=5)
    process = MixtureFlow(law.vocabulary, source=source).double()
    states = law.states(source)
    given = torch.where(law.sequences[:, 0] == HELD, law.q, 0.0)
    place = (law.sequences[:, None] == states[None]).all(-1).double()
    held = torch.tensor([True] + [False] * (length - 1))
    gaps = []
    for steps in (16, 32, 64):
        now = beginning(law, source, states, hold=True)
        for t, s in process.grid(steps):
            now = now @ kernel_matrix(process, law, law.network(source), t, s, held)
        gaps.append(float((place @ now - given / given.sum()).abs().sum() / 2))
    assert 1.8 < gaps[0] / gaps[1] < 2.2 and 1.8 < gaps[1] / gaps[2] < 2.2


def constrained_runs_follow_their_law(source: Any, items: tuple[str, ...], length: int = 2) -> None:
    """A run under constraints is the product of its constrained steps, several sites jumping at once.

    In each step sites jump on their own; where to is the product of the posteriors (of settled
    sites: what they show) given that the whole is accepted.
    """
    law, rules = ToyLaw(length=length, seed=2), constraints(*items)
    process = MixtureFlow(law.vocabulary, source=source).double()
    goals = [goal for goal in law.sequences.tolist() if accepts(rules, goal)]
    assert 0 < len(goals) < len(law.sequences)
    states = law.states(source)
    number = {tuple(state): n for n, state in enumerate(states.tolist())}
    now = beginning(law, source, states, hold=False)
    for step in range(STEPS):
        kappa, jump = step / STEPS, 1 / (STEPS - step)
        weight = posterior_weight(law, source, kappa, states, hold=False)
        after = torch.zeros_like(now)
        hot = torch.nn.functional.one_hot(law.sequences, 3).double()
        posterior = torch.einsum("tq,qlv->tlv", weight / weight.sum(1, keepdim=True).clamp_min(1e-300), hot)
        for state, mass, site_laws in zip(states.tolist(), now.tolist(), posterior, strict=True):
            free = [source == "uniform" or token == law.vocabulary.mask for token in state]
            chances = {
                tuple(goal): float(torch.stack([site_laws[i, v] if free[i] else torch.tensor(float(v == state[i]))
                                                for i, v in enumerate(goal)]).prod()) for goal in goals
            } if mass else {}  # fmt: skip
            for goal, chance in chances.items():
                for moves in itertools.product((False, True), repeat=length) if chance else ():
                    if any(move and not open for move, open in zip(moves, free, strict=True)):
                        continue
                    moved = jump ** sum(moves) * (1 - jump) ** (sum(free) - sum(moves))
                    reached = tuple(g if m else s for g, s, m in zip(goal, state, moves, strict=True))
                    after[number[reached]] += mass * moved * chance / sum(chances.values())
        now = after
    wanted = dict(zip(map(tuple, states.tolist()), now.tolist(), strict=True))
    assert sum(wanted.values()) == pytest.approx(1)
    count = DRAWS // 2
    noise = Noise.start(13, torch.arange(count))
    start = process.prior(torch.full((count,), length), noise)
    rows = Stepwise(STEPS).sample(process, law.network(source), start, noise, rules).tokens
    assert all(accepts(rules, row.tolist()) for row in rows), "a rule is broken"
    assert fit(wanted, [tuple(row.tolist()) for row in rows]) > LEAST_P


@pytest.mark.parametrize("name", schedules.keys())
@pytest.mark.parametrize("source", SOURCES)
def test_runs_follow_the_definition(source: Any, name: str) -> None:
    runs_follow_the_definition(source, schedules.get(name)())


@pytest.mark.parametrize("source", SOURCES)
def test_fixed_tokens_never_move(source: Any) -> None:
    fixed_tokens_never_move(source)


@pytest.mark.parametrize("source", SOURCES)
def test_infilling_tends_to_the_conditional(source: Any) -> None:
    infilling_tends_to_the_conditional(source)


TOYS = {
    "forbidden pair": (("forbid:AB",), 2),
    "composition window": (("composition:AB:1..1:w=2",), 3),
    "must contain": (("contains:C",), 2),
    "repeat": (("repeat:1",), 3),
    "within": (("within:1:ABC",), 3),
}


@pytest.mark.parametrize("toy", TOYS)
@pytest.mark.parametrize("source", SOURCES)
def test_constrained_runs_follow_their_law(source: Any, toy: str) -> None:
    constrained_runs_follow_their_law(source, *TOYS[toy])


# --- planted faults ---------------------------------------------------------------------


Patch = Callable[[pytest.MonkeyPatch], None]


def _time_off_by_one(patch: pytest.MonkeyPatch) -> None:
    true = MixtureFlow.transition

    def late(self: MixtureFlow, network: Any, batch: SequenceBatch, t: Any, s: Any) -> Substitute:
        return true(self, network, batch, max(t - 1 / STEPS, 0.0), s)

    patch.setattr(MixtureFlow, "transition", late)


def _share_left_forgotten(patch: pytest.MonkeyPatch) -> None:
    """(kappa_s - kappa_t) without / (1 - kappa_t)."""

    def jump(self: MixtureFlow, batch: SequenceBatch, t: Tensor, s: Tensor) -> Tensor:
        return torch.where(s >= 1, 1.0, self.schedule.kappa(s) - self.schedule.kappa(t))

    patch.setattr(MixtureFlow, "_jump", jump)


def _network_told_another_time(patch: pytest.MonkeyPatch) -> None:
    true = MixtureFlow._log_answer
    patch.setattr(MixtureFlow, "_log_answer", lambda self, n, batch, kappa: true(self, n, batch, kappa / 2))


def _one_number_for_jump_and_token(patch: pytest.MonkeyPatch) -> None:
    true = Noise.bits
    patch.setattr(Noise, "bits", lambda self, sites, purpose, lane=0: true(self, sites, type(purpose)(0), lane))


def _fixed_forgotten(patch: pytest.MonkeyPatch) -> None:
    true = MixtureFlow._settled
    patch.setattr(MixtureFlow, "_settled", lambda self, batch: true(self, replace(batch, fixed=None)))


def _fixed_told_as_noisy(patch: pytest.MonkeyPatch) -> None:
    true = MixtureFlow._log_answer

    def changed(self: MixtureFlow, network: Any, batch: SequenceBatch, kappa: Tensor) -> Tensor:
        return true(self, network, replace(batch, fixed=None), kappa)

    patch.setattr(MixtureFlow, "_log_answer", changed)


def _sites_alone(patch: pytest.MonkeyPatch) -> None:
    def alone(self: ConstraintSet, law: Tensor, lengths: Tensor, uniform: Tensor, settled: Tensor) -> Tensor:
        return torch.where(settled < 0, draw(law, uniform), settled)

    patch.setattr(ConstraintSet, "draw", alone)


def _drawn_and_discarded(patch: pytest.MonkeyPatch) -> None:
    """Each site alone, and only what breaks a rule is drawn jointly: obeys everything, but another law."""
    true = ConstraintSet.draw

    def mixed(self: ConstraintSet, law: Tensor, lengths: Tensor, uniform: Tensor, settled: Tensor) -> Tensor:
        free = torch.where(settled < 0, draw(law, uniform), settled)
        good = self.feasible(free, lengths)[:, None]
        return torch.where(good, free, true(self, law, lengths, uniform, settled))

    patch.setattr(ConstraintSet, "draw", mixed)


FAULTS: dict[str, tuple[Patch, Callable[[], None]]] = {
    "time_off_by_one_mask": (_time_off_by_one, lambda: runs_follow_the_definition("mask")),
    "time_off_by_one_uniform": (_time_off_by_one, lambda: runs_follow_the_definition("uniform")),
    "share_left_forgotten_mask": (_share_left_forgotten, lambda: runs_follow_the_definition("mask")),
    "share_left_forgotten_uniform": (_share_left_forgotten, lambda: runs_follow_the_definition("uniform")),
    "network_told_another_time": (_network_told_another_time, lambda: runs_follow_the_definition("uniform")),
    "noise_shared": (_one_number_for_jump_and_token, lambda: runs_follow_the_definition("mask")),
    "fixed_forgotten": (_fixed_forgotten, lambda: fixed_tokens_never_move("uniform")),
    "infilling_in_a_last_rush": (_share_left_forgotten, lambda: infilling_tends_to_the_conditional("mask")),
    "fixed_told_as_noisy": (_fixed_told_as_noisy, lambda: infilling_tends_to_the_conditional("uniform")),
    "sites_alone": (_sites_alone, lambda: constrained_runs_follow_their_law("mask", *TOYS["forbidden pair"])),
    "drawn_and_discarded": (
        _drawn_and_discarded,
        lambda: constrained_runs_follow_their_law("mask", *TOYS["forbidden pair"]),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law = FAULTS[name]
    law()
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()

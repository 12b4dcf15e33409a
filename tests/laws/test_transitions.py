"""Laws of the transitions, one step against enumeration; each law is shown to catch a planted fault."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from core.data.layout import Layout
from core.data.noise import Noise, draw
from core.data.sequence_batch import SequenceBatch
from core.guidance import constraint_set as constraint_set_module
from core.guidance.constraint_set import ConstraintSet
from core.guidance.constraints._completion import Completion
from core.guidance.constraints._deletion import Deletion
from core.processes.transitions import append, edit, insert
from core.processes.transitions import registry as transitions
from core.processes.transitions.append import Append
from core.processes.transitions.drift import Drift
from core.processes.transitions.edit import Edit
from core.processes.transitions.insert import Insert
from core.processes.transitions.substitute import Substitute
from tests.laws.toy_faults import patched, replaced
from tests.laws.toy_kinds import DRAWS, KINDS, VOCABULARY, accepts, constraints, fit, outcomes

LEAST_P = 1e-5  # frozen
# What some but not all draws from each toy break.
LOOSE, TIGHT = ("length:2..4", "forbid:AB", "contains:C"), ("length:3..3", "forbid:CB", "contains:C-[AC]")
RULES = {name: TIGHT if name in ("append", "insert") else LOOSE for name in KINDS}


def log_law(transition: Any, kind: Any) -> torch.Tensor:
    """The transition's own law in the shape of the kind's factors."""
    if isinstance(transition, Substitute):
        jump, posterior = transition.law(kind.batch, torch.tensor([0]))
        shown = kind.batch.tokens.flatten()
        probs = torch.nn.functional.pad(jump[0, :, None] * posterior[0].exp(), (0, VOCABULARY.total - 3))
        return probs.scatter_add(-1, shown[:, None], (1 - jump[0])[:, None]).log()
    return transition.law(kind.batch).reshape(kind.sites.shape)


def tilts_multiply_the_kernel(name: str) -> None:
    kind = KINDS[name]()
    plain, tilt = kind.transition(), kind.weights
    given = torch.nn.functional.pad(tilt.reshape(len(kind.sites), -1), (0, kind.sites.shape[1] - tilt.shape[-1]))
    assert torch.allclose(log_law(plain, kind).exp(), kind.sites.exp(), atol=1e-12)
    once = log_law(plain.tilted(tilt), kind).exp()
    assert torch.allclose(once, (kind.sites + given).softmax(-1), atol=1e-12)
    assert torch.allclose(log_law(plain.tilted(0 * tilt), kind).exp(), kind.sites.exp(), atol=1e-12)
    twice = log_law(plain.tilted(tilt.cos()).tilted(tilt - tilt.cos()), kind).exp()
    assert torch.allclose(twice, once, atol=1e-12)


def draws_follow_the_kernel(name: str) -> None:
    kind = KINDS[name]()
    tilt = kind.weights.expand(DRAWS, *kind.weights.shape[1:])
    assert fit(kind.law(), outcomes(kind, kind.transition(DRAWS))) > LEAST_P
    assert fit(kind.law(kind.weights), outcomes(kind, kind.transition(DRAWS).tilted(tilt))) > LEAST_P


def constrained_draws_follow_their_law(name: str) -> None:
    kind, rules = KINDS[name](), constraints(*RULES[name])
    wanted = kind.law_under(lambda sequence: accepts(rules, sequence))
    assert fit(wanted, outcomes(kind, kind.transition(DRAWS), rules)) > LEAST_P


def a_zero_tilt_draws_the_same(name: str) -> None:
    kind = KINDS[name]()
    nothing = torch.zeros(DRAWS, *kind.weights.shape[1:], dtype=torch.float64)
    plain = kind.transition(DRAWS)
    assert outcomes(kind, plain.tilted(nothing)) == outcomes(kind, plain)


def fixed_sites_are_kept(name: str) -> None:
    """Whatever the tilt: the fixed token is still there, still the only fixed one."""
    kind = KINDS[name]()
    against = torch.full((400, *kind.weights.shape[1:]), 0.0, dtype=torch.float64)
    assert kind.batch.fixed is not None
    batch, held = kind.batch.fork(400), kind.batch.tokens[kind.batch.fixed]
    against[..., int(held)] = -30.0
    move = kind.transition(400).tilted(against).draw(batch, Noise.start(2, torch.arange(400)), None, None)
    assert move.batch.fixed is not None
    assert move.batch.fixed.sum(1).tolist() == [1] * 400
    assert bool((move.batch.tokens[move.batch.fixed] == held).all())


def test_every_kind_has_a_toy() -> None:
    shown = {type(make().transition()) for make in KINDS.values()} | {Drift}
    assert shown == set(transitions.members().values())


@pytest.mark.parametrize("name", KINDS)
def test_tilts_multiply_the_kernel(name: str) -> None:
    tilts_multiply_the_kernel(name)


@pytest.mark.parametrize("name", KINDS)
def test_draws_follow_the_kernel(name: str) -> None:
    draws_follow_the_kernel(name)


@pytest.mark.parametrize("name", KINDS)
def test_constrained_draws_follow_their_law(name: str) -> None:
    constrained_draws_follow_their_law(name)


@pytest.mark.parametrize("name", KINDS)
def test_a_zero_tilt_draws_the_same(name: str) -> None:
    a_zero_tilt_draws_the_same(name)


@pytest.mark.parametrize("name", ["uniform", "insert", "edit"])
def test_fixed_sites_are_kept(name: str) -> None:
    fixed_sites_are_kept(name)


@pytest.mark.parametrize("name", ["append", "insert"])
def test_a_step_without_an_accepted_outcome_is_refused(name: str) -> None:
    kind, rules = KINDS[name](), constraints("alphabet:AB")
    with pytest.raises(RuntimeError, match="row 0: its law leaves no accepted sequence"):
        kind.transition().draw(kind.batch, Noise.start(0, torch.arange(1)), rules, rules.start(1))


def test_a_start_longer_than_anything_accepted_is_refused() -> None:
    kind, rules = KINDS["append"](), constraints("length:1..1")
    with pytest.raises(RuntimeError, match="row 0: no accepted sequence has more than 1 tokens"):
        kind.transition().draw(kind.batch, Noise.start(0, torch.arange(1)), rules, rules.start(1))


def test_edits_to_nothing_accepted_are_refused() -> None:
    kind, rules = KINDS["edit"](), constraints("contains:A-A-A-A")
    with pytest.raises(RuntimeError, match="row 0: its law leaves no accepted sequence"):
        kind.transition().draw(kind.batch, Noise.start(0, torch.arange(1)), rules, None)


# --- planted faults ---------------------------------------------------------------------


def _same_length(batch: SequenceBatch, chosen: torch.Tensor, gone: int) -> SequenceBatch:
    """Deletes the last token instead of the one chosen."""
    keep = chosen != gone
    order = torch.arange(chosen.shape[1]).expand_as(chosen)
    tokens = torch.where(keep, chosen, 0).gather(1, order)
    return replace(batch, tokens=tokens, layout=Layout.padded(keep.sum(1), tokens.shape[1]))


def _inserted_late(batch: SequenceBatch, slots: torch.Tensor, *rest: torch.Tensor) -> SequenceBatch:
    late = torch.minimum(slots + 1, batch.layout.lengths)
    return _INSERTED(batch, late, *rest)


_INSERTED = insert.inserted


def _first_start(deletion: Deletion) -> Deletion:
    deletion._starts = deletion._starts[:1]
    return deletion


FAULTS = {
    "append_unmasked": (
        patched(ConstraintSet, "allowed", lambda found, *a: torch.ones_like(found)),
        lambda: constrained_draws_follow_their_law("append"),
    ),
    "append_ignores_what_it_has_read": (
        replaced(append, "caught_up", lambda running, batch, rules: running),
        lambda: constrained_draws_follow_their_law("append"),
    ),
    "append_tilt_dropped": (
        replaced(Append, "tilted", lambda self, weights: self),
        lambda: draws_follow_the_kernel("append"),
    ),
    "substitute_tilts_only_where_to": (
        patched(Substitute, "law", lambda found, self, batch, rows: (self.jump[rows], found[1])),
        lambda: tilts_multiply_the_kernel("uniform"),
    ),
    "substitute_each_site_alone": (
        replaced(
            ConstraintSet,
            "draw",
            lambda self, law, lengths, uniform, settled: torch.where(settled < 0, draw(law, uniform), settled),
        ),
        lambda: constrained_draws_follow_their_law("mask"),
    ),
    "substitute_forgets_what_is_settled": (
        replaced(constraint_set_module, "_forced", lambda law, settled: law.double().log_softmax(-1)),
        lambda: constrained_draws_follow_their_law("fields"),
    ),
    "substitute_fields_count_once": (
        lambda patch: patch.setattr(
            ConstraintSet,
            "draw",
            lambda self, law, lengths, *rest, true=ConstraintSet.draw: true(self, law, lengths // 2, *rest),
        ),
        lambda: constrained_draws_follow_their_law("fields"),
    ),
    "insert_one_slot_late": (
        patched(insert, "inserted", lambda found, batch, slots, *rest: _inserted_late(batch, slots, *rest)),
        lambda: draws_follow_the_kernel("insert"),
    ),
    "insert_slots_behind_the_end": (
        patched(ConstraintSet, "insertable", lambda found, *a: torch.ones_like(found)),
        lambda: constrained_draws_follow_their_law("insert"),
    ),
    "insert_completion_forgets_the_rest": (
        patched(Completion, "_behind", lambda found, *a: [torch.ones_like(part) for part in found]),
        lambda: constrained_draws_follow_their_law("insert"),
    ),
    "insert_loses_what_is_fixed": (
        patched(insert, "inserted", lambda found, batch, *a: replace(found, fixed=found.fixed & False)),
        lambda: fixed_sites_are_kept("insert"),
    ),
    "edit_moves_nothing_up": (replaced(edit, "edited", _same_length), lambda: draws_follow_the_kernel("edit")),
    "edit_tilts_twice": (
        patched(Edit, "tilted", lambda found, self, weights: Edit(found.logits + weights)),
        lambda: tilts_multiply_the_kernel("edit"),
    ),
    "edit_frees_fixed_sites": (
        replaced(Edit, "law", lambda self, batch: self.logits.log_softmax(-1)),
        lambda: fixed_sites_are_kept("edit"),
    ),
    "edit_unconstrained": (
        replaced(ConstraintSet, "edit", lambda self, law, uniform: edit.draw(law, uniform)),
        lambda: constrained_draws_follow_their_law("edit"),
    ),
    "edit_starts_at_one_length": (
        lambda patch: patch.setattr(
            Deletion, "draw", lambda self, *a, true=Deletion.draw: true(_first_start(self), *a)
        ),
        lambda: constrained_draws_follow_their_law("edit"),
    ),
    "a_zero_tilt_takes_other_noise": (
        patched(Insert, "tilted", lambda found, *a: replace(found, insertion=found.insertion + 0.01)),
        lambda: a_zero_tilt_draws_the_same("insert"),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law = FAULTS[name]
    law()
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()

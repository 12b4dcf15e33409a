"""Insertion keeps its laws, and each is shown to catch planted faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.packing import pack, packed_layout
from core.data.sequence_batch import SequenceBatch
from core.decoding.stepwise import Stepwise
from core.processes import insertion
from core.processes.base import Network, TokenLoss
from core.processes.insertion import Insertion
from core.processes.transitions import insert
from core.processes.transitions.insert import Insert
from core.tokenizers.base import Vocabulary
from tests.laws.insertion_laws import (
    LAWS,
    Table,
    closed_gaps_stay_closed,
    constraints_hold_around_closed_gaps,
    distance,
    estimates_are_unbiased,
    guess,
    infilling_is_the_conditional_law,
    losses_are_unbiased,
    process,
    runs_end_at_the_limit,
    runs_follow_the_optimum,
    states_are_seen_evenly,
    the_bound_is_the_expectation_over_orders,
    the_bound_is_tight_at_the_optimum,
    the_optimum_writes_the_data,
    written,
)
from tests.laws.toy_faults import patched, replaced
from tests.laws.toy_insert import LAW


@pytest.mark.parametrize("name", LAWS)
def test_law(name: str) -> None:
    LAWS[name]()


def test_a_packed_batch_is_not_corrupted() -> None:
    rows = torch.tensor([[0, 1, 1], [1, 0, 0]])
    layout = Layout.padded(torch.tensor([3, 1]), 3)
    packed = SequenceBatch(pack(rows, layout), packed_layout(layout))
    with pytest.raises(ValueError, match="unpack first"):
        Insertion(Vocabulary(2)).corrupt(packed, torch.full((1, 4), 0.5), Noise.start(0, torch.arange(2)))


# --- planted faults ---------------------------------------------------------------------


def _unweighted(loss: TokenLoss, *_: object) -> TokenLoss:
    return replace(loss, weights=torch.ones_like(loss.weights))


def _greedy(patch: pytest.MonkeyPatch) -> None:
    true = Insertion.__init__
    patch.setattr(Insertion, "__init__", lambda self, vocabulary, limit: true(self, vocabulary, limit, 0.5))


def _orders_forgotten(found: Tensor, own: Insertion, network: Network, batch: SequenceBatch, kept: Tensor) -> Tensor:
    """The bound on the chance of one order, not of all."""
    return found + torch.where(kept.all(1), 0.0, (kept.sum(1) + 1).log())


def _seldom_whole(patch: pytest.MonkeyPatch) -> None:
    true = Insertion._kept
    patch.setattr(Insertion, "_kept", lambda self, batch, time, noise: true(self, batch, 0.9 * time, noise))


def _no_limit(found: Insert, own: Insertion, network: Network, batch: SequenceBatch, *_: object) -> Insert:
    return replace(found, insertion=own._logits(network, batch)[0])


def _opened(found: SequenceBatch, *_: object) -> SequenceBatch:
    return found if found.closed is None else replace(found, closed=torch.zeros_like(found.closed))


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = {
    "examples_count_once": (patched(Insertion, "state_loss", _unweighted), the_optimum_writes_the_data),
    "examples_count_once_infilling": (patched(Insertion, "state_loss", _unweighted), infilling_is_the_conditional_law),
    "examples_count_once_in_training": (patched(Insertion, "loss", _unweighted), losses_are_unbiased),
    "greedy_stop": (_greedy, the_optimum_writes_the_data),
    "greedy_stop_in_runs": (_greedy, runs_follow_the_optimum),
    "multiplicity_forgotten": (
        replaced(insertion, "_merged", lambda policy, shown: (policy, torch.ones_like(policy))),
        the_bound_is_the_expectation_over_orders,
    ),
    "multiplicity_halved": (
        patched(insertion, "_merged", lambda found, *_: (found[0], torch.ones_like(found[1]))),
        the_bound_is_tight_at_the_optimum,
    ),
    "orders_forgotten": (patched(Insertion, "state_nll", _orders_forgotten), the_bound_is_tight_at_the_optimum),
    "states_share_their_noise": (replaced(Noise, "at", lambda self, steps: self), estimates_are_unbiased),
    "seldom_whole": (_seldom_whole, states_are_seen_evenly),
    "seldom_whole_in_training": (_seldom_whole, losses_are_unbiased),
    "no_limit": (patched(Insertion, "transition", _no_limit), runs_end_at_the_limit),
    "gaps_open_again": (patched(insert, "inserted", _opened), closed_gaps_stay_closed),
    "gaps_open_again_under_rules": (patched(insert, "inserted", _opened), constraints_hold_around_closed_gaps),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law = FAULTS[name]
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()


@pytest.mark.parametrize("fault", [patched(Insertion, "state_loss", _unweighted), _greedy])
def test_faults_of_the_released_code_are_far_off(fault, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    own = process()
    assert distance(written(own, Table(LAW, own)), LAW) > 0.1


# --- borders ----------------------------------------------------------------------------


def test_borders_give_no_nan() -> None:
    own, lengths = process(), torch.tensor([0, 1, 3])
    batch = SequenceBatch(torch.tensor([[7, 7, 7], [1, 7, 7], [0, 0, 2]]).clamp_max(6), Layout.padded(lengths, 3))
    noise, network = Noise.start(0, torch.arange(3)), guess(own)
    for fixed in (None, torch.ones(3, 3, dtype=torch.bool)):
        given = replace(batch, fixed=fixed)
        assert bool(own.loss(network, given, noise).mean().isfinite())
        assert bool(own.likelihood(network, given, noise, 8).nll.isfinite().all())
    samples = Stepwise().sample(own, network, replace(batch, fixed=batch.layout.valid), noise)
    assert all(len(found) >= n for found, n in zip(samples.tokens, lengths.tolist(), strict=True))


def test_packed_is_padded() -> None:
    own, lengths = process(), torch.tensor([3, 0, 2])
    batch = SequenceBatch(torch.tensor([[0, 1, 1], [7, 7, 7], [2, 0, 7]]).clamp_max(6), Layout.padded(lengths, 3))
    dense = replace(batch, tokens=pack(batch.tokens, batch.layout, 8), layout=packed_layout(batch.layout, 8))
    noise, network = Noise.start(0, torch.arange(3)), guess(own)
    assert torch.equal(own.loss(network, dense, noise).values, own.loss(network, batch, noise).values)
    assert torch.equal(own.likelihood(network, dense, noise, 4).nll, own.likelihood(network, batch, noise, 4).nll)


def test_a_threshold_is_a_probability() -> None:
    with pytest.raises(ValueError, match="threshold 1"):
        Insertion(Vocabulary(2), threshold=1.0)

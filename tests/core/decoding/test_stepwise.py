"""What the general sampler refuses, counts, tells and keeps of the batch as rows end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.data.noise import Noise
from core.data.relations import Relations
from core.data.sequence_batch import SequenceBatch
from core.decoding._retire import retire
from core.decoding.stepwise import Stepwise
from core.guidance.guides.base import Guide, GuideContext, Model
from core.guidance.objectives.base import Scoreboard
from core.processes.transitions.drift import Drift
from core.registry import Paper
from tests.laws.toy_runs import NAMES, STEPS, Favour, Run

IDS = torch.arange(12)
ENDING = ("append", "insert")


class DriftOnly(Favour):
    paper = Paper("ours", "toy")
    supports = frozenset({Drift})


def context(model: Model, noise: Noise) -> GuideContext:
    return GuideContext(model, lambda rows: [], noise, Scoreboard([]))


def test_bad_options_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one step, got 0"):
        Stepwise(0)
    with pytest.raises(ValueError, match="guides need a context"):
        Stepwise(guides=[Favour()])


def test_a_guide_of_another_kind_is_refused() -> None:
    run, noise = Run("mask"), Noise.start(0, IDS)
    with pytest.raises(ValueError, match="DriftOnly cannot tilt a Substitute"):
        Stepwise(2, [DriftOnly()], context).sample(*run.parts(), run.start(noise), noise)


def test_one_step_reaches_the_data() -> None:
    run, noise = Run("mask"), Noise.start(0, IDS)
    samples = Stepwise(1).sample(*run.parts(), run.start(noise), noise)
    assert [len(row) for row in samples.tokens] == [2 + n % 3 for n in range(12)]
    assert int(torch.cat(samples.tokens).max()) < 3


@pytest.mark.parametrize("guides", [[], [Favour(1.0)]], ids=["plain", "guided"])
@pytest.mark.parametrize("name", NAMES)
def test_what_the_network_was_asked_is_counted(name: str, guides: list[Guide]) -> None:
    run, noise = Run(name), Noise.start(4, IDS)
    process, network = run.parts()
    rows: list[int] = []

    def counting(batch: SequenceBatch, time: Tensor | None) -> Tensor:
        rows.append(batch.layout.count)
        return network(batch, time)

    samples = Stepwise(STEPS, guides, context).sample(process, counting, run.start(noise), noise)
    assert samples.network_calls == len(rows) and samples.network_rows == sum(rows)
    if name in ("mask", "fields"):
        # A row whose sites are all settled has nothing to ask.
        assert sum(rows) < STEPS * len(IDS)


@pytest.mark.parametrize("name", NAMES)
def test_progress_and_trajectory_follow_the_steps(name: str) -> None:
    run, noise = Run(name), Noise.start(4, IDS)
    process, network = run.parts()
    told: list[tuple[int, int]] = []
    sampler = Stepwise(STEPS, trajectory=True, progress=lambda step, steps: told.append((step, steps)))
    samples = sampler.sample(process, network, run.start(noise), noise)
    total = len(process.grid(STEPS))
    assert told == [(step, total) for step in range(1, len(samples.trajectory) + 1)]
    left = [batch.layout.count for batch in samples.trajectory]
    if name not in ENDING:
        assert left == [len(IDS)] * STEPS
    else:
        # Insertions and appended tokens cost a step each, and so does the end.
        taken = [len(row) + 1 for row in samples.tokens]
        assert left == [sum(steps > done for steps in taken) for done in range(1, max(taken) + 1)]


@pytest.mark.parametrize("hold", [False, True])
@pytest.mark.parametrize("name", ENDING)
def test_rows_that_end_leave_a_batch_as_wide_as_the_rest(name: str, hold: bool) -> None:
    run, noise = Run(name, hold=hold), Noise.start(4, IDS)
    samples = run.sampler(trajectory=True).sample(*run.parts(), run.start(noise), noise)
    assert samples.trajectory[-1].layout.shape == (0, 0)
    for batch in samples.trajectory[:-1]:
        assert batch.layout.shape[1] == batch.tokens.shape[1] == int(batch.layout.lengths.max())
        assert not hold or (batch.fixed is not None and batch.fixed.shape == batch.tokens.shape)


def test_no_sequences_cost_nothing() -> None:
    for name in NAMES:
        run, noise = Run(name), Noise.start(4, torch.arange(0))
        samples = run.sampler().sample(*run.parts(), run.parts()[0].prior(torch.arange(0), noise), noise)
        assert samples.tokens == () and samples.network_calls == samples.network_rows == 0


def test_rows_keep_their_positions_prefix_and_edges_when_a_longer_one_leaves() -> None:
    layout = Layout.padded(torch.tensor([2, 4]), 4, MaskSpec("prefix")).with_prefix(torch.tensor([1, 3]))
    positions = torch.arange(8).reshape(2, 4, 1) * 10
    relations = Relations(torch.tensor([[0, 0, 1], [1, 3, 0]]), torch.tensor([0, 1]))
    layout = replace(layout, positions=positions).with_relations(relations)
    batch = SequenceBatch(torch.arange(8).reshape(2, 4), layout)
    finished: dict[int, torch.Tensor] = {}
    noise, rows = Noise.start(0, torch.arange(2)), torch.arange(2)
    left, _, _, rows = retire(batch, None, noise, rows, torch.tensor([False, True]), finished)
    assert finished[1].tolist() == [4, 5, 6, 7] and rows.tolist() == [0]
    # Its own numbers and no more are kept.
    assert finished[1].untyped_storage().nbytes() == 4 * batch.tokens.itemsize
    assert left.tokens.tolist() == [[0, 1]] and left.layout.mask == layout.mask
    assert left.layout.positions.flatten().tolist() == [0, 10]
    assert left.layout.prefix is not None and left.layout.prefix.tolist() == [1]
    assert left.layout.relations is not None and left.layout.relations.edges.tolist() == [[0, 0, 1]]


def test_whatever_a_batch_holds_a_place_is_narrowed_with_it() -> None:
    tokens = torch.arange(12).reshape(2, 3, 2)
    held: dict[str, Any] = {
        "targets": tokens + 100,
        "weights": torch.rand(2, 3),
        "fixed": torch.rand(2, 3, 2) < 0.5,
        "closed": torch.rand(2, 4) < 0.5,
        "estimate": torch.rand(2, 6, 5),
    }
    batch = SequenceBatch(tokens, Layout.padded(torch.tensor([2, 1]), 3), **held)
    left = batch.narrowed(2)
    assert torch.equal(left.tokens, tokens[:, :2]) and left.layout.shape == (2, 2)
    # A gap more than places, and two sites a place.
    for name, places in {"targets": 2, "weights": 2, "fixed": 2, "closed": 3, "estimate": 4}.items():
        assert torch.equal(getattr(left, name), held[name][:, :places]), name

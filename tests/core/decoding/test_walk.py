"""Walks: what a place goes on with, and what the network is asked."""

from __future__ import annotations

import torch
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding._guiding import Guiding
from core.decoding._reader import Asked, Recalling
from core.decoding._walk import Road, Walk
from core.decoding.ancestral import Ancestral
from core.processes.autoregressive import Autoregressive
from core.processes.mixture_flow import MixtureFlow
from core.tokenizers.base import Vocabulary
from tests.laws.test_beam import NETWORK, PROCESS, beginning
from tests.laws.toy_aims import Aims
from tests.laws.toy_runs import Favour
from tests.laws.toys import neighbours


def test_rows_that_are_alike_are_asked_for_once_until_forgotten() -> None:
    asked = Asked(neighbours(Vocabulary(3), 3))
    recalling = Recalling(asked)
    batch = SequenceBatch.padded([torch.tensor(row) for row in ([0, 1], [2, 1], [0, 1])])
    time = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, 0.7]]).double()
    wanted = asked.network(batch, time)
    assert torch.equal(recalling(batch, time), wanted) and (asked.calls, asked.rows) == (1, 3)
    assert torch.equal(recalling(batch.select(torch.tensor([1, 0, 0])), time[:1].expand(3, 2)), wanted[[1, 0, 0]])
    assert (asked.calls, asked.rows) == (1, 3)
    narrow = batch.select(torch.tensor([0])).narrowed(1)
    assert recalling(narrow, time[:1, :1]).shape == (1, 1, 3) and asked.rows == 4
    recalling.forget()
    assert torch.equal(recalling(batch, time), wanted) and asked.rows == 7


def test_a_walk_on_decoding_states_is_the_ancestral_run() -> None:
    """Guided and under a condition, too; and places swapped on the way go on with what the other has read."""
    start, noise = beginning(), Noise.start(3, torch.arange(5))
    guides, aims = [Favour(1.0)], Aims(lambda x: float(len(x)))
    with torch.no_grad():
        wanted = Ancestral(guides=guides, context=aims).sample(PROCESS, NETWORK, start, noise)
        road = Road(PROCESS, NETWORK, 1, None)
        walk = Walk(road, start, noise, Guiding(guides, aims))
        walk.run(0, len(road.grid))
        assert [walk.finished[place].tolist() for place in range(5)] == [row.tolist() for row in wanted.tokens]
        assert (road.asked.calls, road.asked.rows) == (wanted.network_calls, wanted.network_rows)
        turned = Walk(road, start, noise, Guiding(guides, aims))
        turned.run(0, 2)
        held = {place: tuple(row.tolist()) for place, row in turned.finished.items()}
        held |= {p: tuple(r.tolist()) for p, r in zip(turned.rows.tolist(), turned.batch.tokens, strict=True)}
        turned.take(torch.tensor([4, 4, 2, 1, 0]))
        turned.run(2, len(road.grid))
    for place, source in enumerate((4, 4, 2, 1, 0)):
        assert tuple(turned.finished[place].tolist())[: len(held[source])] == held[source]


def test_what_guides_remember_follows_the_sequences() -> None:
    process, noise = MixtureFlow(Vocabulary(3), limit=3).double(), Noise.start(0, torch.arange(3))
    start = process.prior(torch.tensor([3, 3, 3]), noise)
    guiding = Guiding([Favour(1.0)], Aims(lambda x: 0.0))
    walk = Walk(Road(process, neighbours(Vocabulary(3), 3), 4, None), start, noise, guiding)
    walk.step(0)
    guiding.memories[0].keep(noise.select(torch.tensor([0, 2])), torch.tensor([[1.0], [3.0]]))
    walk.take(torch.tensor([2, 0, 1]))
    first: Tensor = guiding.memories[0].recall(noise, [0.0])
    assert first[:, 0].tolist() == [3.0, 1.0, 0.0]


def test_only_a_network_that_decodes_is_read_token_by_token() -> None:
    assert Road(PROCESS, NETWORK, 1, None).decodes
    assert not Road(Autoregressive(Vocabulary(3)), neighbours(Vocabulary(3), 4), 1, None).decodes

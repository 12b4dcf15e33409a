"""Laws of beams: greedy at width 1, exact at full width, groups, constraints, prompts; and prefixes read once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding import _reader, _search
from core.decoding._reader import Reader
from core.decoding._search import Search
from core.decoding.ancestral import Ancestral
from core.decoding.base import Hypothesis, Sampler, Samples
from core.decoding.beam import Beam
from core.decoding.diverse_beam import DiverseBeam
from core.decoding.stepwise import Stepwise
from core.errors import UserError
from core.processes.mixture_flow import MixtureFlow
from tests.laws.beam_laws import (
    CONDITION,
    FULL,
    LIMIT,
    MAKERS,
    NETWORK,
    PROCESS,
    Flat,
    all_beginnings_are_exact,
    beginning,
    constrained_full_width_is_exact,
    constraints_are_obeyed,
    for_every,
    found,
    groups_avoid_each_other,
    listed,
    one_beginning_is_greedy,
    one_group_is_the_plain_beam,
    reported_scores_are_those_of_the_sequences,
    rows_stand_alone,
    ties_go_to_the_smallest_id,
    what_may_still_win_goes_on,
    wider_is_no_worse_in_the_end,
)
from tests.laws.toy_faults import patched, replaced
from tests.laws.toy_kinds import VOCABULARY, constraints


def test_one_beginning_is_greedy() -> None:
    one_beginning_is_greedy()


@pytest.mark.parametrize("power", [0.0, 0.7, 1.0])
def test_all_beginnings_are_exact(power: float) -> None:
    all_beginnings_are_exact(power)


@for_every
def test_reported_scores_are_those_of_the_sequences(name: str) -> None:
    reported_scores_are_those_of_the_sequences(MAKERS[name])


def test_wider_is_no_worse_in_the_end() -> None:
    wider_is_no_worse_in_the_end()


def test_one_group_is_the_plain_beam() -> None:
    one_group_is_the_plain_beam()


def test_groups_avoid_each_other() -> None:
    groups_avoid_each_other()


def test_groups_that_meet_are_listed_once() -> None:
    """Without a penalty all groups find the same; the list holds it once."""
    apart, same = found(DiverseBeam(6, 3, 0.0)), found(Beam(2))
    assert [listed(apart, n) for n in range(5)] == [listed(same, n) for n in range(5)]


@for_every
def test_constraints_are_obeyed(name: str) -> None:
    constraints_are_obeyed(MAKERS[name])


def test_constrained_full_width_is_exact() -> None:
    constrained_full_width_is_exact()


@for_every
def test_rows_stand_alone(name: str) -> None:
    rows_stand_alone(MAKERS[name])


def test_ties_go_to_the_smallest_id() -> None:
    ties_go_to_the_smallest_id()


def test_what_may_still_win_goes_on() -> None:
    what_may_still_win_goes_on()


def test_costs_and_progress_are_counted() -> None:
    told: list[tuple[int, int]] = []
    samples = found(Beam(FULL, progress=lambda done, of: told.append((done, of))))
    # Each row reads its start, and then every beginning of up to LIMIT tokens.
    assert samples.network_rows == 5 * FULL and samples.network_calls == LIMIT + 1
    assert told == [(0, 5)] * LIMIT + [(5, 5)]


@pytest.mark.parametrize(
    "options", [{"width": 0}, {"width": 5, "groups": 2}, {"groups": 0}, {"diversity": -1.0}, {"length_power": -0.5}]
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="width .* and groups|diversity .* and length_power"):
        DiverseBeam(**options)


def test_what_does_not_write_token_by_token_is_refused() -> None:
    for sampler, name in ((Beam(), "beam"), (DiverseBeam(), "diverse_beam"), (Ancestral(), "ancestral")):
        sampler.suits(PROCESS)
        with pytest.raises(UserError, match=f"sampler={name} needs an autoregressive checkpoint"):
            sampler.suits(MixtureFlow(VOCABULARY))


def test_a_row_that_nothing_can_end_is_an_error() -> None:
    never = Flat(torch.tensor([0.0, 0, 0, -torch.inf]).double())
    rules = constraints("length:2..3", longest=LIMIT)
    with pytest.raises(RuntimeError, match="row 0: its law leaves no accepted sequence within reach"):
        found(Beam(2), None, rules, never)


# --- prefixes that sequences share ------------------------------------------------------


def drawn(prompts: list[list[int]], copies: int, sampler: Sampler | None = None) -> Samples:
    """Continuations of each prompt, under the noise of their own numbers."""
    start = replace(beginning(prompts), condition=None).fork(copies)
    start = replace(start, condition=CONDITION[:1].expand(start.layout.count, 1))
    noise = Noise.start(3, torch.arange(start.layout.count))
    with torch.no_grad():
        return (sampler or Ancestral()).sample(PROCESS, NETWORK, start, noise)


def shared_prompts_give_the_same_tokens() -> None:
    prompts = [[0, 2], [1], [0, 2], []]
    together = [row.tolist() for row in drawn(prompts, 12).tokens]
    assert together == [row.tolist() for row in drawn(prompts, 12, Stepwise()).tokens]
    assert all(row[: len(prompts[n // 12])] == prompts[n // 12] for n, row in enumerate(together))
    assert len(set(map(tuple, together))) > 2 * len(prompts)


def test_shared_prompts_give_the_same_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    shared_prompts_give_the_same_tokens()
    shared = drawn([[0, 2], [1]], 20)
    # Read for each continuation on its own: the same tokens, for 38 rows more.
    monkeypatch.setattr(_reader, "alike", lambda batch: (torch.arange(batch.layout.count),) * 2)
    single = drawn([[0, 2], [1]], 20)
    assert [row.tolist() for row in shared.tokens] == [row.tolist() for row in single.tokens]
    assert single.network_rows - shared.network_rows == 40 - 2
    assert single.network_calls == shared.network_calls


def test_another_condition_is_another_beginning() -> None:
    start = replace(beginning([[1], [1], [1]]), condition=torch.tensor([[0.0], [1.0], [torch.nan]]).double())
    noise = Noise.start(3, torch.arange(3))
    with torch.no_grad():
        cached = Ancestral().sample(PROCESS, NETWORK, start, noise)
        whole = Stepwise().sample(PROCESS, NETWORK, start, noise)
    assert [row.tolist() for row in cached.tokens] == [row.tolist() for row in whole.tokens]
    first, owner = _reader.alike(start.fork(2))
    assert len(first) == 3 and torch.equal(first[owner], torch.tensor([0, 0, 2, 2, 4, 4]))


# --- planted faults ---------------------------------------------------------------------


def _counted_twice(after: None, self: Search, found: list[list[Hypothesis]], *rest: Any) -> None:
    for kept in found:
        kept += kept[:1]


def _all_alike(first_and_owner: Any, batch: SequenceBatch) -> Any:
    return torch.zeros(1, dtype=torch.long), torch.zeros(batch.layout.count, dtype=torch.long)


def _state_not_selected(patch: pytest.MonkeyPatch) -> None:
    def select(self: Reader, index: Tensor) -> None:
        state = self._state
        Reader.__dict__["true_select"](self, index)
        kept = torch.arange(len(index)).clamp_max(len(state.position) - 1)
        self._state = state.select(kept)

    patch.setattr(Reader, "true_select", Reader.select, raising=False)
    patch.setattr(Reader, "select", select)


def _greater_ids_are_better(patch: pytest.MonkeyPatch) -> None:
    true = Search._chosen
    tilt = 1e-12 * torch.arange(4)
    patch.setattr(Search, "_chosen", lambda self, cell, totals, count: true(self, cell, totals + tilt, count))


def _unruled(patch: pytest.MonkeyPatch) -> None:
    true = Search.sample
    patch.setattr(Search, "sample", lambda self, a, b, c, d, rules=None: true(self, a, b, c, d))


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[], None]]] = {
    "states_are_not_reordered": (
        _state_not_selected,
        lambda: reported_scores_are_those_of_the_sequences(MAKERS["beam"]),
    ),
    "finished_count_twice": (patched(Search, "_finish", _counted_twice), all_beginnings_are_exact),
    "finished_by_order_of_arrival": (replaced(_search, "_order", lambda hypothesis: 0), all_beginnings_are_exact),
    "nothing_is_hopeful_once_full": (
        patched(Search, "_hopeful", lambda keep, self, found, cell, *rest: keep & (cell < 0)),
        all_beginnings_are_exact,
    ),
    "ties_go_to_the_last": (_greater_ids_are_better, ties_go_to_the_smallest_id),
    "rules_are_dropped": (_unruled, lambda: constraints_are_obeyed(MAKERS["diverse"])),
    "all_begin_alike": (patched(_reader, "alike", _all_alike), shared_prompts_give_the_same_tokens),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fault, law = FAULTS[name]
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        law()

"""Laws of first-hitting sampling (4.5): exact without steps of time; each with planted faults."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding import first_hitting
from core.decoding.base import Samples
from core.decoding.first_hitting import FirstHitting
from core.errors import UserError
from core.guidance.constraint_set import ConstraintSet
from core.guidance.guides.base import GuideContext
from core.guidance.objectives.base import Scoreboard
from core.processes.autoregressive import Autoregressive
from core.processes.base import Network
from core.processes.mixture_flow import MixtureFlow
from core.processes.transitions.substitute import Substitute
from tests.laws.test_likelihood import Tabular, log_orders
from tests.laws.toy_kinds import accepts, constraints, fit
from tests.laws.toy_runs import Favour
from tests.laws.toys import ToyLaw, batch_of

DRAWS, LEAST_P = 20_000, 1e-5  # frozen
LAW = ToyLaw(length=3, seed=2)
MASK = LAW.vocabulary.mask
PROCESS = MixtureFlow(LAW.vocabulary, limit=5).double()


def begun(ids: Tensor, lengths: Tensor | None = None) -> tuple[SequenceBatch, Noise]:
    noise = Noise.start(11, ids)
    return PROCESS.prior(torch.full_like(ids, 3) if lengths is None else lengths, noise), noise


def drawn(network: Network, rules: ConstraintSet | None = None, draws: int = DRAWS) -> list[tuple[int, ...]]:
    start, noise = begun(torch.arange(draws))
    return [tuple(row.tolist()) for row in FirstHitting().sample(PROCESS, network, start, noise, rules).tokens]


def exact_posterior_gives_the_data() -> None:
    """With the exact posterior the law is q itself: no number of steps, no error but that of the draws."""
    rows = drawn(LAW.network("mask"))
    wanted = dict(zip(map(tuple, LAW.sequences.tolist()), LAW.q.tolist(), strict=True))
    assert fit(wanted, rows) > LEAST_P
    counts = torch.tensor([rows.count(key) for key in wanted]).double() / DRAWS
    # The noise floor: the mean distance of multinomial draws, and four of its deviations at most.
    floor = (LAW.q * (1 - LAW.q) / DRAWS).sqrt()
    assert (
        float((counts - LAW.q).abs().sum() / 2) < 0.4 * float(floor.sum()) + 4 * float(floor.square().sum().sqrt()) / 2
    )


def any_network_gives_the_mean_over_orders() -> None:
    network = Tabular(3)
    every = list(itertools.product(range(3), repeat=3))
    wanted = {row: float(log_orders(network, row).exp().mean()) for row in every}
    assert fit(wanted, drawn(network)) > LEAST_P


def constrained_law(rules: ConstraintSet, network: Network) -> dict[tuple[int, ...], float]:
    """One uniform masked site after the other, from the site laws given that the whole is accepted."""
    goals = [goal for goal in itertools.product(range(3), repeat=3) if accepts(rules, goal)]
    now = {(MASK,) * 3: 1.0}
    for left in (3, 2, 1):
        after: dict[tuple[int, ...], float] = defaultdict(float)
        for state, mass in now.items():
            law = network(batch_of(torch.tensor([state])), None)[0].softmax(-1)
            fits = [goal for goal in goals if all(s in (MASK, g) for s, g in zip(state, goal, strict=True))]
            chance = [float(torch.stack([law[i, g] if state[i] == MASK else torch.tensor(1.0).double()
                                         for i, g in enumerate(goal)]).prod()) for goal in fits]  # fmt: skip
            for goal, p in zip(fits, chance, strict=True):
                for site in range(3):
                    if state[site] == MASK:
                        reached = (*state[:site], goal[site], *state[site + 1 :])
                        after[reached] += mass * p / sum(chance) / left
        now = after
    return now


def rules_are_obeyed_with_their_law() -> None:
    rules, network = constraints("forbid:AB", "contains:C"), Tabular(3)
    rows = drawn(network, rules)
    assert all(accepts(rules, row) for row in rows)
    assert fit(constrained_law(rules, network), rows) > LEAST_P


def fixed_sites_never_move() -> None:
    """And the others follow q given them."""
    start, noise = begun(torch.arange(DRAWS))
    fixed = torch.tensor([False, True, False]).expand(DRAWS, -1)
    held = replace(start, tokens=torch.where(fixed, 1, start.tokens), fixed=fixed)
    rows = [tuple(row.tolist()) for row in FirstHitting().sample(PROCESS, LAW.network("mask"), held, noise).tokens]
    given = torch.where(LAW.sequences[:, 1] == 1, LAW.q, 0.0)
    wanted = dict(zip(map(tuple, LAW.sequences.tolist()), (given / given.sum()).tolist(), strict=True))
    assert fit(wanted, rows) > LEAST_P


def walked(ids: Tensor, rules: ConstraintSet | None = None, first: int = 0, **start: Any) -> Samples:
    batch, noise = begun(ids, 1 + ids % 4)
    return FirstHitting(trajectory=True).sample(PROCESS, vote, start.get("batch", batch), noise, rules, first)


def vote(batch: SequenceBatch, time: Tensor | None) -> Tensor:
    """Logits by a site's neighbours, for any length."""
    tokens = torch.nn.functional.pad(batch.tokens.masked_fill(~batch.layout.valid, MASK), (1, 1), value=MASK)
    table = torch.randn(7, 7, 3, generator=torch.Generator().manual_seed(0)).double()
    return table[tokens[:, :-2], tokens[:, 2:]]


def rows_stand_alone_and_resume() -> None:
    ids = torch.arange(32)
    for rules in (None, constraints("forbid:AB", "contains:C", longest=5)):
        whole = [row.tolist() for row in walked(ids, rules).tokens]
        assert [walked(ids[n : n + 1], rules).tokens[0].tolist() for n in range(0, 32, 3)] == whole[::3]
        alike = ids[ids % 4 == 3]
        path = walked(alike, rules)
        rest = walked(alike, rules, first=2, batch=path.trajectory[1])
        assert [row.tolist() for row in rest.tokens] == [row.tolist() for row in path.tokens]


LAWS: dict[str, Callable[[], None]] = {
    law.__name__: law
    for law in (
        exact_posterior_gives_the_data,
        any_network_gives_the_mean_over_orders,
        rules_are_obeyed_with_their_law,
        fixed_sites_never_move,
        rows_stand_alone_and_resume,
    )
}


@pytest.mark.parametrize("name", LAWS)
def test_law(name: str) -> None:
    LAWS[name]()


def test_one_event_a_masked_site() -> None:
    ids = torch.arange(8)
    found = walked(ids)
    # Lengths are 1 to 4, two sequences of each.
    assert found.network_calls == 4 and found.network_rows == 2 * (1 + 2 + 3 + 4)
    assert [len(row) for row in found.tokens] == [1, 2, 3, 4, 1, 2, 3, 4]
    empty, noise = begun(ids, torch.zeros_like(ids))
    nothing = FirstHitting().sample(PROCESS, LAW.network("mask"), empty, noise)
    assert nothing.network_calls == 0 and [len(row) for row in nothing.tokens] == [0] * 8


def test_fields_are_sites() -> None:
    support = torch.tensor([[True, True, False], [False, True, True]])
    process = MixtureFlow(LAW.vocabulary, support=support)
    noise = Noise.start(0, torch.arange(100))
    start = process.prior(torch.full((100,), 2), noise)
    even = lambda batch, time: torch.zeros(*batch.tokens.flatten(1).shape, 3).double()  # noqa: E731
    rows = torch.stack(FirstHitting().sample(process, even, start, noise).tokens)
    assert rows.shape == (100, 2, 2) and int(rows[..., 0].max()) == 1 and int(rows[..., 1].min()) == 1


def test_guides_tilt_each_event() -> None:
    """Each token is drawn from the posterior weighted by e for token 0: the mean over orders of tilted laws."""
    network = Tabular(3)
    favoured = lambda batch, time: network(batch, time) + torch.tensor([1.0, 0, 0]).double()  # noqa: E731
    start, noise = begun(torch.arange(DRAWS))
    context = lambda model, noise: GuideContext(model, lambda batch: (), noise, Scoreboard(()))  # noqa: E731
    guided = FirstHitting([Favour(1.0)], context)
    rows = [tuple(row.tolist()) for row in guided.sample(PROCESS, network, start, noise).tokens]
    wanted = {row: float(log_orders(favoured, row).exp().mean()) for row in itertools.product(range(3), repeat=3)}
    assert fit(wanted, rows) > LEAST_P


@pytest.mark.parametrize("process", [MixtureFlow(LAW.vocabulary, "uniform"), Autoregressive(LAW.vocabulary)])
def test_other_processes_are_refused(process: Any) -> None:
    start, noise = begun(torch.arange(2))
    with pytest.raises(UserError, match="source=mask"):
        FirstHitting().sample(process, LAW.network("mask"), start, noise)


# --- planted faults ---------------------------------------------------------------------


def _left_to_right(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(first_hitting, "draw", lambda law, uniform: law.isfinite().long().argmax(1))


def _first_answer_kept(patch: pytest.MonkeyPatch) -> None:
    """Every site is drawn from what the network said of nothing but masks."""
    true = MixtureFlow._log_answer
    blank = lambda batch: replace(batch, tokens=torch.full_like(batch.tokens, MASK))  # noqa: E731
    patch.setattr(MixtureFlow, "_log_answer", lambda self, net, batch, kappa: true(self, net, blank(batch), kappa))


def _rules_forgotten(patch: pytest.MonkeyPatch) -> None:
    true = Substitute.draw
    patch.setattr(Substitute, "draw", lambda self, batch, noise, rules, running: true(self, batch, noise, None, None))


def _fixed_forgotten(patch: pytest.MonkeyPatch) -> None:
    true = MixtureFlow.transition

    def changed(self: MixtureFlow, network: Network, batch: SequenceBatch, t: float, s: float) -> Substitute:
        if batch.fixed is not None:
            batch = replace(batch, fixed=None, tokens=torch.where(batch.fixed, MASK, batch.tokens))
        return true(self, network, batch, t, s)

    patch.setattr(MixtureFlow, "transition", changed)


def _rows_in_the_noise(patch: pytest.MonkeyPatch) -> None:
    true = Noise.uniform
    patch.setattr(Noise, "uniform", lambda self, *a, **k: (true(self, *a, **k) + 0.01 * len(self.sequences)) % 1)


def _events_counted_from_the_start(patch: pytest.MonkeyPatch) -> None:
    true, calls = Noise.at, itertools.count()
    patch.setattr(Noise, "at", lambda self, steps: true(self, next(calls)))


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (_left_to_right, "any_network_gives_the_mean_over_orders"),
        (_first_answer_kept, "exact_posterior_gives_the_data"),
        (_rules_forgotten, "rules_are_obeyed_with_their_law"),
        (_fixed_forgotten, "fixed_sites_never_move"),
        (_rows_in_the_noise, "rows_stand_alone_and_resume"),
        (_events_counted_from_the_start, "rows_stand_alone_and_resume"),
    ],
)
def test_planted_faults_are_caught(
    fault: Callable[[pytest.MonkeyPatch], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        LAWS[name]()

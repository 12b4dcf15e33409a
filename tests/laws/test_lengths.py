"""Laws of lengths that know the class: normalised for each, drawn as often as the likelihood says."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from core.data.conditions import Column, Conditions
from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.processes import _length, registry
from core.processes._length import LengthPrior
from core.processes.base import Process
from core.tokenizers.base import Vocabulary
from tests.laws.toy_faults import patched, replaced

LIMIT = 70
# Channels 0 and 1 are a scalar's; the class one-hots lie behind them.
CONDITIONS = Conditions((Column("size"), Column("kind", ("long", "rare", "short", "unseen"))))
CLASSES = {"long": 2, "rare": 3, "short": 4, "unseen": 5, "none": -1}
ALLOWED = (0, 3, 6, 7, 8, 26, 27, 30, 33, 39, 71)


def condition_of(kinds: list[str]) -> Tensor:
    """Conditions with a scalar, which plays no part; rows without any are NaN."""
    found = torch.zeros(len(kinds), CONDITIONS.width)
    found[:, 1] = 1
    for row, kind in enumerate(kinds):
        found[row] = torch.nan if kind == "none" else found[row]
        if kind != "none":
            found[row, CLASSES[kind]] = 1
    return found


def made(name: str) -> Process:
    """400 long and 400 short sequences of disjoint lengths, 2 rare ones, 20 of no class."""
    member = registry.get(name)
    process = member(Vocabulary(0 if member.writes == "numbers" else 3), limit=LIMIT)
    process.condition_on(CONDITIONS)
    source = torch.Generator().manual_seed(0)
    draws = {"long": (25, 36, 400), "short": (5, 10, 400), "rare": (15, 16, 2), "none": (5, 36, 20)}
    lengths = [torch.randint(low, high, (count,), generator=source) for low, high, count in draws.values()]
    kinds = [kind for kind, (_, _, count) in draws.items() for _ in range(count)]
    process.fit(torch.cat(lengths), condition_of(kinds))
    return process


# A process that writes its end learns no lengths.
NAMES = [name for name in registry.keys() if hasattr(made(name), "length_prior")]
KINDS = list(CLASSES)


def settled(process: Process, lengths: Tensor, condition: Tensor | None) -> SequenceBatch:
    """Sequences of which nothing but the length is left to be said."""
    layout = Layout.padded(lengths, int(lengths.max()))
    if process.writes == "numbers":
        tokens = torch.zeros(*layout.shape, process.outputs, dtype=torch.float64)
    else:
        tokens = torch.zeros(layout.shape, dtype=torch.long)
    return SequenceBatch(tokens, layout, fixed=torch.ones_like(tokens, dtype=torch.bool), condition=condition)


def length_nll(process: Process, kind: str | None) -> Tensor:
    """What the process pays for each length from 1 to the limit in one class."""
    lengths = torch.arange(1, LIMIT + 1)
    batch = settled(process, lengths, None if kind is None else condition_of([kind] * LIMIT))

    def answer(batch: SequenceBatch, time: Tensor | None) -> Tensor:
        return torch.zeros(*batch.tokens.shape[:2], process.outputs, dtype=torch.float64)

    return process.likelihood(answer, batch, Noise.start(0, lengths), 12).nll.double()


def lengths_sum_to_one(name: str) -> None:
    process = made(name)
    for kind in (*KINDS, None):
        mass = (-length_nll(process, kind)).exp().sum()
        assert abs(float(mass) - 1) < 1e-9, kind


def classes_have_their_own(name: str) -> None:
    """Disjoint lengths stay apart but for 1 % and what 5 sequences of all weigh; few sequences move a class partly."""
    process = made(name)
    law = {kind: (-length_nll(process, kind)).exp() for kind in KINDS}
    for kind, (low, high) in {"short": (3, 12), "long": (23, 38)}.items():
        assert float(law[kind][low - 1 : high - 1].sum()) > 0.99 * (1 - 5 / 405) * 0.999, kind
    near = slice(13 - 1, 18 - 1)
    assert 0.99 * 2 / 7 < float(law["rare"][near].sum()) < 0.99 * 2 / 7 + 0.05
    assert torch.allclose(law["unseen"], law["none"], atol=0, rtol=1e-12)
    assert torch.equal(law["none"], (-length_nll(process, None)).exp())
    # One law over all: as many are short as are long.
    assert 0.4 < float(law["none"][:13].sum()) < 0.6


def draws_follow_the_rows_law(name: str) -> None:
    process, draws = made(name), 4000
    kinds = KINDS * draws
    condition, noise = condition_of(kinds), Noise.start(1, torch.arange(len(kinds)))
    found = process.lengths(noise, ALLOWED, condition)
    within = [n for n in ALLOWED if 0 < n <= LIMIT]
    assert set(found.tolist()) <= set(within)
    for place, kind in enumerate(KINDS):
        counts = torch.bincount(found[place :: len(KINDS)], minlength=LIMIT + 1)[within]
        law = (-length_nll(process, kind)).exp()[[n - 1 for n in within]]
        expected = law / law.sum() * draws
        rare = expected < 5
        seen, due = (torch.cat([each[~rare], each[rare].sum()[None]]).numpy() for each in (counts, expected))
        assert chisquare(seen, due).pvalue > 1e-5, kind
    some = torch.tensor([7, 3, 11])
    assert torch.equal(process.lengths(noise.select(some), ALLOWED, condition[some]), found[some])
    assert torch.equal(
        process.lengths(noise, ALLOWED)[KINDS.index("none") :: len(KINDS)], found[KINDS.index("none") :: len(KINDS)]
    )


LAWS = [lengths_sum_to_one, classes_have_their_own, draws_follow_the_rows_law]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("law", LAWS, ids=[law.__name__ for law in LAWS])
def test_law(law: Callable[[str], None], name: str) -> None:
    law(name)


@pytest.mark.parametrize("name", sorted(set(registry.keys()) - set(NAMES)))
def test_who_writes_the_end_draws_no_length(name: str) -> None:
    process, noise = made(name), Noise.start(0, torch.arange(5))
    assert torch.equal(process.lengths(noise, ALLOWED, condition_of(KINDS)), process.lengths(noise, ALLOWED))
    assert not any("length" in key for key in process.state_dict())


def test_both_flows_are_held_to_the_laws() -> None:
    assert {"mixture_flow", "continuous_flow"} <= set(NAMES)


def test_a_packed_row_pays_by_its_own_class() -> None:
    process, kinds = made("mixture_flow"), ["short", "long", "none"]
    lengths = torch.tensor([6, 30, 30])
    padded = settled(process, lengths, condition_of(kinds))
    whole = torch.zeros(1, 66, dtype=torch.long)
    packed = replace(padded, tokens=whole, layout=Layout.packed(lengths, 66), fixed=torch.ones_like(whole).bool())
    noise = Noise.start(0, torch.arange(3))
    found = [
        process.likelihood(lambda batch, time: torch.zeros(*batch.tokens.shape, 3), batch, noise, 4).nll
        for batch in (padded, packed)
    ]
    alone = [float(length_nll(process, kind)[n - 1]) for kind, n in zip(kinds, lengths.tolist(), strict=True)]
    assert found[0].tolist() == pytest.approx(alone) and found[1].tolist() == pytest.approx(alone)


# --- planted faults ---------------------------------------------------------------------


FAULTS: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], Callable[[str], None]]] = {
    "no_class": (patched(LengthPrior, "_classes", lambda found, *_: found * 0 - 1), classes_have_their_own),
    "another_class": (patched(LengthPrior, "_table", lambda found, *_: found.roll(1, 0)), classes_have_their_own),
    "every_row_the_first": (patched(LengthPrior, "_classes", lambda found, *_: found * 0), classes_have_their_own),
    "all_weigh_little": (replaced(_length, "_ALL", 0.01), classes_have_their_own),
    "all_weigh_much": (replaced(_length, "_ALL", 500.0), classes_have_their_own),
    "counts_for_a_law": (patched(LengthPrior, "_table", lambda found, *_: found + 0.1), lengths_sum_to_one),
}


@pytest.mark.parametrize("fault,name", [*itertools.product(FAULTS, NAMES)])
def test_planted_faults_are_caught(fault: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, law = FAULTS[fault]
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        law(name)


@pytest.mark.parametrize("name", NAMES)
def test_drawing_by_another_class_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    true = LengthPrior.draw
    monkeypatch.setattr(LengthPrior, "draw", lambda self, noise, allowed, condition=None: true(self, noise, allowed))
    with pytest.raises(AssertionError):
        draws_follow_the_rows_law(name)

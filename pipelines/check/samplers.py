"""Laws of a sampler."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch

from core.data.sequence_batch import SequenceBatch
from core.decoding.base import Sampler, Samples
from core.errors import UserError, as_user_error
from core.guidance.guides.base import Guide, GuideContext
from core.processes.transitions import registry as transitions
from core.processes.transitions.base import Transition
from core.registry import Paper
from pipelines.check._law import alike, require
from pipelines.check._toys import Toy, one_of_each_kind, toys

_IDS = torch.arange(4)


def laws(member: type[Sampler]) -> Iterator[str]:
    tried = one_of_each_kind([toy for toy in toys() if _suits(member, toy)])
    yield require(bool(tried), "it suits one of the registered processes")
    for toy in tried:
        sampler = _made(member, toy)
        drawn = toy.drawn(sampler, _IDS)
        yield from _drawing(sampler, toy, drawn)
        if "guides" in inspect.signature(member).parameters:
            idle = _Idle()
            guided = toy.drawn(_made(member, toy, guides=[idle], context=toy.context()), _IDS).tokens
            yield require(idle.asked > 0, f"{toy.key}: its guides are asked")
            yield require(alike(guided, drawn.tokens), f"{toy.key}: a guide that changes nothing changes no sequence")


def _made(member: type[Sampler], toy: Toy, **options: Any) -> Sampler:
    """The sampler with its own settings, and with objectives where it seeks some."""
    steering = {"context": toy.context()} if member.steered else {}
    with as_user_error(member.__name__):
        return member(**{**steering, **options})


def _suits(member: type[Sampler], toy: Toy) -> bool:
    try:
        _made(member, toy).suits(toy.model.process)
    except UserError:
        return False
    return True


def _drawing(sampler: Sampler, toy: Toy, drawn: Samples) -> Iterator[str]:
    rows, process = drawn.tokens, toy.model.process
    yield require(len(rows) == len(_IDS), f"{toy.key}: as many sequences come out as were started")
    if process.writes == "tokens":
        inside = all(bool(((row >= 0) & (row < process.vocabulary.size)).all()) for row in rows)
        yield require(inside and max(map(len, rows)) <= process.limit, f"{toy.key}: of data tokens, within the limit")
    few = torch.tensor([3, 1])
    alone = toy.drawn(sampler, _IDS[few]).tokens
    same = alike(alone, [rows[row] for row in few.tolist()])
    yield require(same, f"{toy.key}: a sequence is the same alone and in a batch")
    if sampler.searches:
        other = toy.drawn(sampler, _IDS, seed=5).tokens if not sampler.steered else rows
        yield require(alike(other, rows), f"{toy.key}: a search that is not steered uses no noise")
        scores = [[found.score for found in ranked] for ranked in drawn.ranked]
        first = alike([ranked[0].tokens for ranked in drawn.ranked], rows)
        ordered = all(row == sorted(row, reverse=True) for row in scores)
        yield require(first and ordered, f"{toy.key}: what a search lists is best first, and that is what it gives")
    yield require(toy.kept(toy.drawn(sampler, _IDS, held=True)), f"{toy.key}: fixed sites never move")
    if toy.rules is not None:
        ruled = toy.drawn(sampler, _IDS, ruled=True)
        yield require(
            toy.obeyed(ruled) and len(ruled.tokens) == len(_IDS), f"{toy.key}: constraints hold, nothing is discarded"
        )


class _Idle(Guide):
    """Leaves every step as it is, and counts them."""

    paper = Paper("ours", "No guide")
    supports = frozenset(transitions.members().values())

    def __init__(self) -> None:
        super().__init__(0.0)
        self.asked = 0

    def reweight(
        self, transition: Transition, batch: SequenceBatch, t: float, s: float, context: GuideContext
    ) -> Transition:
        self.asked += 1
        return transition

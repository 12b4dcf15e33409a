"""`motif check` of fusions, samplers and guides: every registered one keeps its laws, and planted faults do not."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partialmethod
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor

from core.backbones.memories import registry as fusions
from core.backbones.memories.parallel import Parallel
from core.backbones.source import Source
from core.data.noise import Noise, Purpose
from core.data.sequence_batch import SequenceBatch
from core.decoding import registry as samplers
from core.decoding._guiding import Guiding
from core.decoding.ancestral import Ancestral
from core.decoding.beam import Beam
from core.decoding.stepwise import Stepwise
from core.errors import UserError
from core.guidance.guides import registry as guides
from core.guidance.guides.base import Guide, GuideContext
from core.processes.transitions.append import Append
from core.processes.transitions.substitute import Substitute
from core.registry import Paper
from pipelines.check import check
from pipelines.check import guides as guide_laws


@pytest.fixture(autouse=True)
def _unchecked_shapes() -> Iterator[None]:
    """Shapes are checked by the laws of each member; here they would cost most of the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps show no less than many."""
    for member in samplers.members().values():
        few = {name: 6 for name in ("steps", "budget") if name in inspect.signature(member).parameters}
        monkeypatch.setattr(member, "__init__", partialmethod(member.__init__, **few))


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("key", [*samplers.keys(), *fusions.keys()])
def test_registered_members_keep_their_laws(key: str) -> None:
    assert [*check(key)][-1] == "all laws hold"


@pytest.mark.parametrize("key", guides.keys())
def test_registered_guides_keep_their_laws(key: str) -> None:
    assert [*check(key)][-1] == "all laws hold"


# --- planted faults ---------------------------------------------------------------------


def _unheard(patch: pytest.MonkeyPatch) -> None:
    true = Parallel._fuse
    patch.setattr(Parallel, "_fuse", lambda self, h, places, sources: true(self, h, places, sources[:1] * len(sources)))


def _leaking(patch: pytest.MonkeyPatch) -> None:
    """Every sequence reads a little of the first row."""
    true = Parallel._fuse
    leak = lambda sources: 1e-3 * sources[0].values[0, 0].mean()  # noqa: E731
    patch.setattr(Parallel, "_fuse", lambda self, h, places, given: true(self, h, places, given) + leak(given))


def _seeing_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Source, "seen", property(lambda self: (self.owner >= 0)[:, None] | self.valid[:1]))


def _ordered(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Parallel, "ordered", True)


def _without_rules(patch: pytest.MonkeyPatch) -> None:
    true = Stepwise.sample
    patch.setattr(Stepwise, "sample", lambda self, a, b, c, d, rules=None, first=0: true(self, a, b, c, d))


def _without_guides(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Guiding, "tilted", lambda self, transition, *rest: transition)


def _moving_what_is_fixed(patch: pytest.MonkeyPatch) -> None:
    true = Stepwise.sample

    def sample(self: Stepwise, process: Any, network: Any, start: SequenceBatch, *rest: Any) -> Any:
        return true(
            self, process, network, start if start.fixed is None else replace(start, tokens=0 * start.tokens), *rest
        )

    patch.setattr(Stepwise, "sample", sample)


def _short(patch: pytest.MonkeyPatch) -> None:
    true = Ancestral.sample

    def sample(self: Ancestral, *rest: Any) -> Any:
        found = true(self, *rest)
        return replace(found, tokens=found.tokens[:-1])

    patch.setattr(Ancestral, "sample", sample)


def _worst_first(patch: pytest.MonkeyPatch) -> None:
    true = Beam.sample

    def sample(self: Beam, *rest: Any) -> Any:
        found = true(self, *rest)
        return replace(found, ranked=tuple(row[::-1] for row in found.ranked))

    patch.setattr(Beam, "sample", sample)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(
    ("fault", "key", "law"),
    [
        (_unheard, "parallel", "an empty memory"),
        (_leaking, "parallel", "depends on itself"),
        (_seeing_all, "parallel", "of memories"),
        (_ordered, "parallel", "the order of the memories"),
        (_without_rules, "stepwise", "constraints hold"),
        (_without_guides, "stepwise", "its guides are asked"),
        (_moving_what_is_fixed, "stepwise", ".*: fixed sites never move"),
        (_short, "ancestral", "as many sequences come out"),
        (_worst_first, "beam", "best first"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_planted_faults_are_found(
    fault: Callable[[pytest.MonkeyPatch], None], key: str, law: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(UserError, match=f"law broken: .*{law}"):
        list(check(key))


# --- guides that break a law ------------------------------------------------------------


class Early(Guide):
    """The first letters, at masked sites."""

    paper = Paper("ours", "toy")
    supports = frozenset({Substitute})

    def reweight(self, transition: Any, batch: SequenceBatch, t: float, s: float, context: GuideContext) -> Any:
        weights = torch.zeros(*transition.jump.shape, 20, dtype=torch.float64)
        weights[..., :4] = self.pull(batch)
        return transition.tilted(weights)

    def pull(self, batch: SequenceBatch) -> float:
        return self.strength


class Crowd(Early):
    """Pulls harder where there are more rows."""

    def pull(self, batch: SequenceBatch) -> float:
        return self.strength * batch.layout.count / 12


class Deaf(Early):
    """Pulls nowhere."""

    def pull(self, batch: SequenceBatch) -> float:
        return 0.0


class Loose(Early):
    """Lets every site jump."""

    def reweight(self, transition: Any, *rest: Any) -> Any:
        tilted = super().reweight(transition, *rest)
        return replace(tilted, jump=torch.where(torch.tensor(self.strength > 1), 1.0, tilted.jump))


class Nowhere(Early):
    supports = frozenset()


@pytest.mark.parametrize(
    ("member", "law"),
    [
        (Crowd, "alone and in a batch"),
        (Deaf, "changes what is drawn"),
        (Loose, "fixed sites never move"),
        (Nowhere, "supports kinds of transition"),
    ],
)
def test_guides_that_break_a_law_are_found(member: type[Guide], law: str) -> None:
    with pytest.raises(UserError, match=f"law broken: .*{law}"):
        list(guide_laws.laws(member))
    assert len(list(guide_laws.laws(Early))) > 3


class Gumbel(Guide):
    """Draws the next token itself: other sequences than without it, of the same law where `offset` is 0."""

    paper = Paper("ours", "toy")
    supports = frozenset({Append})
    offset = 0.0

    def reweight(self, transition: Any, batch: SequenceBatch, t: float, s: float, context: GuideContext) -> Any:
        logits = transition.logits
        chance = context.noise.uniform(logits.shape[1], Purpose.GUIDE).clamp_min(1e-300)
        pull = (self.strength + self.offset) * torch.linspace(0, 3, logits.shape[1]).double()
        chosen = (logits + pull - (-chance.log()).log()).argmax(1, keepdim=True)
        return replace(transition, logits=torch.full_like(logits, -torch.inf).scatter(1, chosen, 0.0))


class Offset(Gumbel):
    offset = 0.3


def test_a_guide_that_draws_for_itself_is_judged_by_its_law() -> None:
    lines = guide_laws.laws(Gumbel)
    assert any("strength 0 is the unguided law" in line for line in lines)
    with pytest.raises(UserError, match="strength 0 is the unguided law"):
        list(guide_laws.laws(Offset))


def test_numbers_of_another_law_are_told_apart() -> None:
    def rows(mean: float, seed: int) -> list[Tensor]:
        noise = Noise.start(seed, torch.arange(2000))
        return list((noise.uniform(1, Purpose.PRIOR) + mean)[..., None])

    assert guide_laws._same_law(rows(0.0, 1), rows(0.0, 2))
    assert not guide_laws._same_law(rows(0.0, 1), rows(0.1, 2))

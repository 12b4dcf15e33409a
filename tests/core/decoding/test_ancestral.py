"""Ancestral sampling is stepwise sampling, whatever sharpens or constrains it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.ancestral import Ancestral
from core.decoding.base import Sampler, Samples, Truncation
from core.decoding.beam import Beam
from core.decoding.stepwise import Stepwise
from core.guidance.constraint_set import ConstraintSet
from core.guidance.guides.base import Guide, GuideContext
from core.guidance.objectives.base import Scoreboard
from core.processes.autoregressive import Autoregressive
from core.processes.mixture_flow import MixtureFlow
from core.processes.transitions.append import Append
from core.registry import Paper
from tests.laws.test_decoding import VOCABULARY, network_for
from tests.laws.toy_kinds import VOCABULARY as LETTERS
from tests.laws.toy_kinds import constraints

COUNT = 30


class Sharpened(Guide):
    """The same truncation as a guide of the general sampler."""

    paper = Paper("ours", "toy")
    supports = frozenset({Append})

    def __init__(self, truncation: Truncation) -> None:
        super().__init__()
        self.truncation = truncation

    def reweight(self, transition: Any, batch: SequenceBatch, t: float, s: float, context: GuideContext) -> Append:
        return transition.tilted(self.truncation.log_weights(transition.logits))


def runs(
    ancestral: Ancestral, guides: list[Guide], rules: ConstraintSet | None = None, size: int = 5
) -> tuple[Samples, Samples]:
    process = Autoregressive(LETTERS if rules else VOCABULARY, limit=8)
    network, noise = network_for(process), Noise.start(2, torch.arange(COUNT))
    start = process.prior(torch.zeros(COUNT, dtype=torch.long), noise)
    context = lambda model, noise: GuideContext(model, lambda b: [], noise, Scoreboard([]))  # noqa: E731
    with torch.no_grad():
        return (
            ancestral.sample(process, network, start, noise, rules),
            Stepwise(guides=guides, context=context).sample(process, network, start, noise, rules),
        )


def tokens(samples: Samples) -> list[list[int]]:
    return [row.tolist() for row in samples.tokens]


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0.4}, {"top_k": 2}, {"top_p": 0.6}, {"min_p": 0.3}, {"temperature": 2, "top_k": 3}]
)
def test_truncation_tilts_the_law(options: dict[str, Any]) -> None:
    cached, whole = runs(Ancestral(**options), [Sharpened(Truncation(**options))])
    assert tokens(cached) == tokens(whole)
    assert (tokens(cached) == tokens(runs(Ancestral(), [])[0])) == (not options)


def test_constraints_are_followed() -> None:
    rules = constraints("length:2..4", "forbid:AB")
    cached, whole = runs(Ancestral(), [], rules)
    assert tokens(cached) == tokens(whole) != tokens(runs(Ancestral(), [])[0])


def test_costs_and_progress_are_counted() -> None:
    told: list[tuple[int, int]] = []
    cached, whole = runs(Ancestral(progress=lambda done, of: told.append((done, of))), [])
    lengths = [len(row) + 1 for row in cached.tokens]
    assert cached.network_calls == whole.network_calls == max(lengths)
    # What all of them begin with is read once.
    assert whole.network_rows == sum(lengths) == cached.network_rows + COUNT - 1
    assert told == [(sum(length <= step for length in lengths), COUNT) for step in range(1, max(lengths) + 1)]


def test_what_cannot_be_read_token_by_token_is_refused() -> None:
    noise = Noise.start(0, torch.arange(1))
    flow, chain = MixtureFlow(VOCABULARY), Autoregressive(VOCABULARY)
    start = flow.prior(torch.tensor([2]), noise)
    for process, network in ((flow, network_for(flow)), (chain, lambda batch, time: torch.zeros(1, 1, 6))):
        with pytest.raises(ValueError, match="needs an autoregressive process and a network that decodes"):
            Ancestral().sample(process, network, start, noise)


@pytest.mark.parametrize("sampler", [Ancestral, Stepwise, Beam], ids=lambda kind: kind.__name__)
def test_a_network_that_fails_is_named_and_not_asked_for_ever(sampler: type[Sampler]) -> None:
    process = Autoregressive(VOCABULARY, limit=12)
    network = network_for(process)
    torch.nn.init.constant_(network.backbone.embedding.weight, torch.nan)
    noise = Noise.start(2, torch.arange(4))
    start = process.prior(torch.zeros(4, dtype=torch.long), noise)
    with torch.no_grad(), pytest.raises(RuntimeError, match="the logits behind it are not finite"):
        sampler().sample(process, network, start, noise)

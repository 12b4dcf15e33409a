"""Laws of beams, on a network sharp enough that greedy is not the best."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.backbones.backbone import Backbone
from core.backbones.network import BackboneNetwork
from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.base import Sampler, Samples
from core.decoding.beam import Beam
from core.decoding.diverse_beam import DiverseBeam
from core.guidance.constraint_set import ConstraintSet
from core.processes.autoregressive import Autoregressive
from tests.laws.toy_kinds import VOCABULARY, accepts, constraints

LIMIT = 4
PROCESS = Autoregressive(VOCABULARY, limit=LIMIT)
# All sequences of at most LIMIT tokens of three, and all their beginnings.
EVERY = list(itertools.chain(*(itertools.product(range(3), repeat=n) for n in range(LIMIT + 1))))
FULL = len(EVERY)
NOISE = Noise.start(0, torch.arange(0))


def network(seed: int = 0, condition: int = 1) -> BackboneNetwork:
    """A network sharp enough that greedy is not the best, with a mixer of each kind of state."""
    torch.manual_seed(seed)
    pattern = [{"name": "attention", "heads": 2}, {"name": "min_gru"}]
    backbone = Backbone(VOCABULARY.total, 4, 16, pattern, 2, PROCESS.attends, condition=condition)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return BackboneNetwork(backbone.double().eval())


NETWORK = network()
# Five rows of their own law each.
CONDITION = torch.linspace(-2, 2, 5).double()[:, None]


def beginning(prompts: list[list[int]] | None = None) -> SequenceBatch:
    prompts = prompts if prompts is not None else [[]] * 5
    width = max(map(len, prompts))
    rows = torch.tensor([[*row, *[VOCABULARY.pad] * (width - len(row))] for row in prompts]).reshape(
        len(prompts), width
    )
    layout = Layout.padded(torch.tensor([len(row) for row in prompts]), width, PROCESS.attends)
    return SequenceBatch(rows.long(), layout, condition=CONDITION[: len(prompts)])


def found(
    sampler: Sampler, prompts: list[list[int]] | None = None, rules: ConstraintSet | None = None, net: Any = NETWORK
) -> Samples:
    with torch.no_grad():
        return sampler.sample(PROCESS, net, beginning(prompts), NOISE, rules)


def listed(samples: Samples, row: int = 0) -> list[tuple[int, ...]]:
    return [tuple(hypothesis.tokens.tolist()) for hypothesis in samples.ranked[row]]


def log_probability(sequences: list[tuple[int, ...]], row: int, prompt: int = 0) -> list[float]:
    """log p of what stands behind the prompt, the end included, by reading whole sequences without a state."""
    width = max(map(len, sequences))
    tokens = torch.tensor([[*s, *[VOCABULARY.pad] * (width - len(s))] for s in sequences]).reshape(-1, width).long()
    layout = Layout.padded(torch.tensor([len(s) for s in sequences]), width)
    condition = CONDITION[row].expand(len(sequences), 1)
    shifted = PROCESS.shifted(SequenceBatch(tokens, layout, condition=condition))
    assert shifted.targets is not None
    with torch.no_grad():
        law = NETWORK(shifted, None)
    # A sequence of full length can only end.
    law[:, LIMIT:, :-1] = -torch.inf
    chosen = law.log_softmax(-1).gather(-1, torch.where(shifted.layout.valid, shifted.targets, 0)[..., None])[..., 0]
    counted = shifted.layout.valid & (shifted.layout.offsets >= prompt)
    return torch.where(counted, chosen, 0.0).sum(1).tolist()


def greedy(row: int, prompt: list[int]) -> tuple[int, ...]:
    """The likeliest token again and again, from whole prefixes."""
    held = list(prompt)
    while True:
        with torch.no_grad():
            step = PROCESS.transition(NETWORK, replace(beginning([held]), condition=CONDITION[row : row + 1]), 0, 1)
        token = int(step.logits.argmax())
        if token == VOCABULARY.eos:
            return tuple(held)
        held.append(token)


PROMPTS = [[], [0, 2], [1], [2, 2, 0], [0]]


# --- laws -------------------------------------------------------------------------------


def one_beginning_is_greedy() -> None:
    for prompts in ([[]] * 5, PROMPTS):
        wanted = [greedy(row, prompt) for row, prompt in enumerate(prompts)]
        samples = found(Beam(1), prompts)
        assert [tuple(row.tolist()) for row in samples.tokens] == wanted
        assert [len(ranked) for ranked in samples.ranked] == [1] * 5
    assert len(set(wanted)) > 2


def all_beginnings_are_exact(power: float = 0.0) -> None:
    samples = found(Beam(FULL, power))
    for row, ranked in enumerate(samples.ranked):
        values = dict(zip(EVERY, log_probability(EVERY, row), strict=True))
        wanted = sorted(EVERY, key=lambda s: -values[s] / (len(s) + 1) ** power)
        assert listed(samples, row) == wanted
        assert [h.log_probability for h in ranked] == pytest.approx([values[s] for s in wanted], abs=1e-9)
        assert [h.score for h in ranked] == pytest.approx([values[s] / (len(s) + 1) ** power for s in wanted], abs=1e-9)
        assert sum(torch.tensor(h.log_probability).exp() for h in ranked) == pytest.approx(1, abs=1e-6)
        assert torch.equal(samples.tokens[row], ranked[0].tokens)


def reported_scores_are_those_of_the_sequences(make: Callable[[], Sampler]) -> None:
    """Beams narrower than the tree: whatever is reported has the log-probability of its own tokens, once."""
    samples = found(make(), PROMPTS)
    for row, ranked in enumerate(samples.ranked):
        sequences = listed(samples, row)
        assert len(set(sequences)) == len(sequences)
        assert all(list(s[: len(PROMPTS[row])]) == PROMPTS[row] for s in sequences)
        values = log_probability(sequences, row, len(PROMPTS[row]))
        assert [h.log_probability for h in ranked] == pytest.approx(values, abs=1e-9)
        assert [h.score for h in ranked] == sorted((h.score for h in ranked), reverse=True)


def wider_is_no_worse_in_the_end() -> None:
    """The best of a beam never beats the exact best, and reaches it at full width; greedy misses some."""
    best = [max(log_probability(EVERY, row)) for row in range(5)]
    values = {w: [r[0].log_probability for r in found(Beam(w)).ranked] for w in (1, 3, FULL)}
    for reached in values.values():
        assert all(a <= b + 1e-9 for a, b in zip(reached, best, strict=True))
    assert values[FULL] == pytest.approx(best, abs=1e-9) and sum(values[1]) < sum(best) - 1e-3


def one_group_is_the_plain_beam() -> None:
    for width in (1, 3, 7):
        for power in (0.0, 1.0):
            plain, one = found(Beam(width, power), PROMPTS), found(DiverseBeam(width, 1, 9.0, power), PROMPTS)
            assert [listed(plain, n) for n in range(5)] == [listed(one, n) for n in range(5)]
            assert [h.score for r in plain.ranked for h in r] == [h.score for r in one.ranked for h in r]


def groups_avoid_each_other() -> None:
    """Groups of one: each takes the best token less a penalty for every earlier group that took it, by hand."""
    for groups, strength in ((2, 1.5), (3, 0.4), (4, 0.2)):
        samples = found(DiverseBeam(groups, groups, strength))
        for row in range(5):
            taken: list[list[int]] = []
            for _ in range(groups):
                held: list[int] = []
                while VOCABULARY.eos not in held:
                    with torch.no_grad():
                        state = replace(beginning([held]), condition=CONDITION[row : row + 1])
                        law = PROCESS.transition(NETWORK, state, 0, 1).logits.log_softmax(-1)[0]
                    for other in taken:
                        if len(held) < len(other):
                            law[other[len(held)]] -= strength
                    held.append(int(law.argmax()))
                taken.append(held)
            assert set(listed(samples, row)) == {tuple(held[:-1]) for held in taken}


def constraints_are_obeyed(make: Callable[[], Sampler]) -> None:
    for rules in (constraints("forbid:AB", "contains:C", longest=LIMIT), constraints("length:2..3", longest=LIMIT)):
        samples = found(make(), None, rules)
        for row in range(5):
            assert samples.ranked[row] and all(accepts(rules, s) for s in listed(samples, row))


def constrained_full_width_is_exact() -> None:
    """The model's own likeliest among what is accepted, with its own log-probabilities."""
    rules = constraints("forbid:AB", "contains:C", longest=LIMIT)
    inside = [s for s in EVERY if s and accepts(rules, s)]
    samples = found(Beam(FULL), None, rules)
    for row in range(5):
        values = dict(zip(inside, log_probability(inside, row), strict=True))
        assert listed(samples, row) == sorted(inside, key=lambda s: -values[s])


def rows_stand_alone(make: Callable[[], Sampler]) -> None:
    together = found(make(), PROMPTS)
    order = [3, 1, 4, 0, 2]
    start = beginning(PROMPTS)
    with torch.no_grad():
        moved = make().sample(PROCESS, NETWORK, start.select(torch.tensor(order)), NOISE)
        alone = [make().sample(PROCESS, NETWORK, start.select(torch.tensor([n])), NOISE) for n in range(5)]
    for place, row in enumerate(order):
        assert listed(moved, place) == listed(together, row) == listed(alone[row])


class Flat:
    """A network of equal logits: everything is a tie, told apart by ids."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def __call__(self, batch: SequenceBatch, time: Tensor | None) -> Tensor:
        return self.logits.expand(*batch.tokens.shape, 4)

    def read(self, batch: SequenceBatch) -> tuple[Tensor, Any]:
        return self.logits.expand(batch.layout.count, 4), NETWORK.read(batch)[1]

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.logits.expand(len(tokens), 4), state


class Markov(Flat):
    """A network that says, after each token and after the start, how likely the next are; rows are by id."""

    def __call__(self, batch: SequenceBatch, time: Tensor | None) -> Tensor:
        return self.logits[batch.tokens]

    def read(self, batch: SequenceBatch) -> tuple[Tensor, Any]:
        return self.logits[batch.tokens[batch.layout.last()]], NETWORK.read(batch)[1]

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.logits[tokens], state


def markov(chances: dict[int, list[float]]) -> Markov:
    """From how likely A, B, C and the end are behind an id; what is impossible is only far less likely."""
    table = torch.zeros(VOCABULARY.total, 4).double()
    for token, row in chances.items():
        table[token] = torch.tensor(row)
    return Markov(table.log().clamp_min(-1000))


def what_may_still_win_goes_on() -> None:
    """Of the tokens behind AB all are sure: it is given up only where its best score would not do."""
    sure = {1: [0, 0, 1.0, 0], 2: [0, 0, 1.0, 0]}
    net = markov({VOCABULARY.bos: [0.5, 0, 0, 0.5], 0: [0, 0.1, 0, 0.9], **sure})
    # log 0.45 / 2, and log 0.05 / 5 before log 0.5, which was found first; log 0.05 / 4 would not do.
    assert listed(found(Beam(2, 1.0), net=net)) == [(0,), (0, 1, 2, 2)]
    # A tie with what was found goes to the smaller ids.
    net = markov({VOCABULARY.bos: [0.5, 0, 0, 0.5], 0: [0, 0.5, 0.5, 0], 1: [0, 1.0, 0, 0], 2: [0, 0, 0, 1.0]})
    assert listed(found(Beam(2), net=net)) == [(), (0, 1, 1, 1)]


def ties_go_to_the_smallest_id() -> None:
    even = Flat(torch.zeros(4).double())
    assert listed(found(Beam(1), net=even)) == [(0,) * LIMIT]
    # Longer ones are less likely; of equal length the smallest ids come first.
    assert listed(found(Beam(FULL), net=even))[:6] == [(), (0,), (1,), (2,), (0, 0), (0, 1)]
    assert listed(found(Beam(2), net=even)) == [(0, 0, 0, 0), (0, 0, 0, 1)]


MAKERS: dict[str, Callable[[], Sampler]] = {
    "beam": lambda: Beam(3),
    "mean": lambda: Beam(4, 1.0),
    "diverse": lambda: DiverseBeam(6, 3, 0.7),
    "pairs": lambda: DiverseBeam(4, 2, 0.2, 0.5),
}
for_every = pytest.mark.parametrize("name", MAKERS)

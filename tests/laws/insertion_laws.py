"""Laws of insertion against enumeration: of the data's sequences, their states and the ways to write them.

`Table` holds what minimises the process's own expected loss, found by counting the targets that its
gradient shows, so that a fault in the loss shows in what the optimum writes.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.decoding.stepwise import Stepwise
from core.guidance.constraint_set import ConstraintSet
from core.processes import insertion
from core.processes.base import Network
from core.processes.insertion import Insertion
from core.processes.transitions.insert import Insert
from core.tokenizers.base import Vocabulary
from tests.laws.test_constraints import built
from tests.laws.toy_insert import LAW
from tests.laws.toy_kinds import TOKENIZER, accepts, fit
from tests.laws.toys import batch_of, neighbours

Sequenced = tuple[int, ...]
LETTERS = 3
LEAST_P = 1e-5  # frozen
DRAWS = 10_000
# Every sequence holds one 2...2, around which something may stand.
FLANKED = {(2, 0, 2): 0.2, (2, 2): 0.1, (1, 2, 0, 2): 0.25, (2, 1, 1, 2, 0): 0.15, (2, 0, 1, 2): 0.3}
NEVER = 700.0  # a logit beyond fp64


def process(limit: int = 6) -> Insertion:
    return Insertion(Vocabulary(LETTERS), limit)


def row(sequence: Sequenced) -> Tensor:
    return torch.tensor(sequence, dtype=torch.long).reshape(1, -1)


def subsets(length: int) -> Tensor:
    """Every way to keep some of the sites, `[2^L, L]`."""
    every = list(itertools.product((False, True), repeat=length))
    return torch.tensor(every, dtype=torch.bool).reshape(2**length, length)


class Table:
    """The policy of least expected loss on `law`, as a network."""

    def __init__(self, law: Mapping[Sequenced, float], own: Insertion) -> None:
        self.mass: dict[Sequenced, Tensor] = {}
        self.stops: dict[Sequenced, float] = defaultdict(float)
        for sequence, q in law.items():
            for kept in subsets(len(sequence)):
                chance = q / (len(sequence) + 1) / math.comb(len(sequence), int(kept.sum()))
                self._count(sequence, kept, chance, own)

    def _count(self, sequence: Sequenced, kept: Tensor, chance: float, own: Insertion) -> None:
        state = tuple(t for t, k in zip(sequence, kept.tolist(), strict=True) if k)
        answers: list[Tensor] = []

        def even(batch: SequenceBatch, time: Tensor | None) -> Tensor:
            answers.append(torch.zeros(1, batch.tokens.shape[1], LETTERS + 1, dtype=torch.float64, requires_grad=True))
            return answers[0]

        loss = own.state_loss(even, batch_of(row(sequence)), kept[None])
        (slope,) = torch.autograd.grad((loss.values * loss.weights).sum(), answers)
        slope = slope[0, : len(state) + 1]
        # d/dz of softplus is 1/2 at 0: the slope of the stop shows weight and target.
        stop, goes = float(slope[0, -1]), float(slope[0, -1] > 0)
        targets = 2 * abs(stop) * goes / (slope.shape[0] * LETTERS) - slope[:, :-1]
        self.stops[state] += chance * 2 * abs(stop) * (1 - goes)
        self.mass[state] = self.mass.get(state, torch.zeros_like(targets)) + chance * targets * goes

    def __call__(self, batch: SequenceBatch, time: Tensor | None) -> Tensor:
        logits = torch.zeros(*batch.tokens.shape, LETTERS + 1, dtype=torch.float64)
        for n, length in enumerate(batch.layout.lengths.tolist()):
            state = tuple(batch.tokens[n, 1:length].tolist())
            if state in self.mass:
                mass, stop = self.mass[state].clamp_min(0), self.stops[state]
                going = float(mass.sum())
                logits[n, :length, :-1] = mass.log().clamp_min(-NEVER) if going else 0.0
                ratio = math.log(stop / going) if stop and going else NEVER if stop else -NEVER
                logits[n, 0, -1] = ratio
        return logits


def start_of(state: Sequenced, count: int = 1, closed: Sequence[bool] | None = None) -> SequenceBatch:
    """Fixed tokens that runs start from."""
    tokens = row(state).expand(count, -1)
    gaps = None if closed is None else torch.tensor(closed).expand(count, -1)
    return replace(batch_of(tokens, torch.ones_like(tokens, dtype=torch.bool)), closed=gaps)


def written(
    own: Insertion, network: Network, state: Sequenced = (), closed: Sequence[bool] | None = None
) -> dict[Sequenced, float]:
    """The law of what is written from `state` on, by following every outcome of every transition."""
    now = {(state, tuple(closed or ())): 1.0}
    finished: dict[Sequenced, float] = defaultdict(float)
    for _ in range(own.limit + 1):
        after: dict[tuple[Sequenced, tuple[bool, ...]], float] = defaultdict(float)
        for ((held, gaps), mass), law in zip(now.items(), _laws(own, network, now), strict=True):
            finished[held] += mass * law[-1]
            for number, p in enumerate(law[:-1]):
                slot, token = divmod(number, LETTERS)
                left = (*gaps[:slot], False, False, *gaps[slot + 1 :]) if gaps else ()
                if p > 1e-30:
                    after[(*held[:slot], token, *held[slot:]), left] += mass * p
        now = after
    assert not now
    return finished


def _laws(
    own: Insertion, network: Network, states: Mapping[tuple[Sequenced, tuple[bool, ...]], float]
) -> list[list[float]]:
    """The law of the next step from each of some states of one length."""
    if not states:
        return []
    tokens = torch.cat([row(held) for held, _ in states])
    closed = torch.tensor([gaps for _, gaps in states]) if all(gaps for _, gaps in states) else None
    batch = replace(batch_of(tokens, torch.ones_like(tokens, dtype=torch.bool)), closed=closed)
    transition = own.transition(network, batch, 0.0, 1.0)
    assert isinstance(transition, Insert)
    return transition.law(batch).exp().tolist()


def distance(one: Mapping[Sequenced, float], other: Mapping[Sequenced, float]) -> float:
    return sum(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in {*one, *other}) / 2


def bound(own: Insertion, network: Network, sequence: Sequenced) -> float:
    """The bound by all states: each size once, the subsets of a size as likely."""
    kept = subsets(len(sequence))
    terms = own.state_nll(network, batch_of(row(sequence).expand(len(kept), -1)), kept)
    ways = torch.tensor([math.comb(len(sequence), int(k.sum())) for k in kept], dtype=torch.float64)
    return float((terms / ways).sum())


def bound_by_orders(own: Insertion, network: Network, sequence: Sequenced) -> float:
    """E over all orders of -log P(path) + log P(order gives the path), from the transitions alone."""
    paths: Counter[tuple[Sequenced, ...]] = Counter()
    for order in itertools.permutations(range(len(sequence))):
        held = (sorted(order[:size]) for size in range(len(sequence) + 1))
        paths[tuple(tuple(sequence[i] for i in places) for places in held)] += 1
    total, orders = 0.0, math.factorial(len(sequence))
    for path, count in paths.items():
        steps = (step(own, network, here, there) for here, there in itertools.pairwise(path))
        log_p = sum(map(math.log, steps)) + math.log(step(own, network, sequence, None))
        total += count / orders * (math.log(count / orders) - log_p)
    return total


def step(own: Insertion, network: Network, here: Sequenced, there: Sequenced | None) -> float:
    """The probability of one step between two states, or of the stop, over all outcomes that read so."""
    batch = start_of(here)
    transition = own.transition(network, batch, 0.0, 1.0)
    assert isinstance(transition, Insert)
    law = transition.law(batch)[0].exp().tolist()
    if there is None:
        return law[-1]
    reached = ((*here[:slot], token, *here[slot:]) for slot in range(len(here) + 1) for token in range(LETTERS))
    return sum(p for p, found in zip(law[:-1], reached, strict=True) if found == there)


def every_sequence(longest: int, letters: int = LETTERS) -> list[Sequenced]:
    return [s for n in range(longest + 1) for s in itertools.product(range(letters), repeat=n)]


def guess(own: Insertion) -> Network:
    return neighbours(own.vocabulary, own.outputs, seed=4)


# --- the laws ---------------------------------------------------------------------------


def the_optimum_writes_the_data(law: Mapping[Sequenced, float] = LAW) -> None:
    """4.9."""
    own = process()
    assert distance(written(own, Table(law, own)), law) < 1e-12


def the_bound_is_tight_at_the_optimum() -> None:
    for law in (LAW, FLANKED):
        own = process()
        table = Table(law, own)
        for sequence, q in law.items():
            assert abs(bound(own, table, sequence) + math.log(q)) < 1e-9


def the_bound_is_the_expectation_over_orders() -> None:
    """4.2: and above -log p, by the divergence of the orders."""
    own = process(limit=4)
    network = guess(own)
    law = written(own, network)
    assert sum(law.values()) == pytest.approx(1, abs=1e-12)
    for sequence in every_sequence(4, 2):
        value = bound(own, network, sequence)
        assert value == pytest.approx(bound_by_orders(own, network, sequence), abs=1e-9)
        assert value > -math.log(law[sequence]) - 1e-9


def estimates_are_unbiased() -> None:
    """Of the bound, whatever the number of states asked for; the error is the one that repeats show."""
    own, repeats = process(limit=5), 4000
    network, noise = guess(own), Noise.start(5, torch.arange(repeats))
    for sequence, points in (((0, 1, 1, 0, 2), 2), ((0, 0, 1, 2), 8), ((2, 1), 4)):
        batch = batch_of(row(sequence).expand(repeats, -1))
        result = own.likelihood(network, batch, noise, points)
        spread = float(result.nll.std())
        assert abs(float(result.nll.mean()) - bound(own, network, sequence)) < 4 * spread / repeats**0.5
        assert float(result.error.square().mean() ** 0.5) == pytest.approx(spread, rel=0.1)
        assert result.tokens.tolist() == [len(sequence) + 1] * repeats


def states_are_seen_evenly() -> None:
    """4.10: every number of tokens as often, every subset of that number too; fixed ones always."""
    own, sequence = process(), (0, 1, 2, 0)
    noise = Noise.start(7, torch.arange(DRAWS))
    time = noise.uniform(1, insertion.Purpose.TIME).expand(-1, 4)
    for fixed in (None, torch.tensor([False, True, False, False]).expand(DRAWS, -1)):
        batch = batch_of(row(sequence).expand(DRAWS, -1), fixed)
        kept = own._kept(batch, time, noise)
        free = [0, 1, 2, 3] if fixed is None else [0, 2, 3]
        assert fixed is None or bool(kept[:, 1].all())
        sets = [s for n in range(len(free) + 1) for s in itertools.combinations(free, n)]
        wanted = [DRAWS / (len(free) + 1) / math.comb(len(free), len(s)) for s in sets]
        found = Counter(tuple(i for i in free if keep[i]) for keep in kept.tolist())
        assert chisquare([found[s] for s in sets], wanted).pvalue > LEAST_P
        shown = own.corrupt(batch, time, noise)
        assert shown.layout.lengths.tolist() == kept.sum(1).tolist() and shown.targets is batch.tokens
        left = shown.tokens[5, : int(shown.layout.lengths[5])]
        assert left.tolist() == [sequence[i] for i in range(4) if kept[5, i]]


def losses_are_unbiased() -> None:
    """What training draws has the mean of all states of all sequences, weights included."""
    own, repeats = process(), 3000
    network = guess(own)
    rows = [(0, 1, 1, 2), (2, 0, 2, 1)]
    batch = batch_of(torch.cat([row(s) for s in rows] * repeats))
    loss = own.loss(network, batch, Noise.start(1, torch.arange(len(rows) * repeats)))
    assert int(loss.count) == 5 * len(rows) * repeats
    totals = (loss.values * loss.weights).sum(1)
    wanted = 0.0
    for sequence in rows:
        kept = subsets(4)
        states = own.state_loss(network, batch_of(row(sequence).expand(len(kept), -1)), kept)
        chance = torch.tensor([1 / 5 / math.comb(4, int(k.sum())) for k in kept], dtype=torch.float64)
        wanted += float((chance * (states.values * states.weights).sum(1)).sum()) / len(rows)
    assert abs(float(totals.mean()) - wanted) < 4 * float(totals.std()) / len(totals) ** 0.5


def runs_follow_the_optimum() -> None:
    """What is drawn is the data's law, and the rows that stopped leave the batch."""
    own = process()
    noise = Noise.start(3, torch.arange(DRAWS))
    start = own.prior(own.lengths(noise, ()), noise)
    samples = Stepwise().sample(own, Table(LAW, own), start, noise)
    found = [tuple(found.tolist()) for found in samples.tokens]
    assert fit(LAW, found) > LEAST_P
    longest = max(map(len, found))
    assert samples.network_calls == longest + 1 and samples.network_rows == sum(len(s) + 1 for s in found)


def runs_end_at_the_limit() -> None:
    own = process(limit=3)
    eager = lambda batch, time: guess(own)(batch, time).index_fill(-1, torch.tensor([LETTERS]), -3.0)  # noqa: E731
    noise = Noise.start(3, torch.arange(DRAWS))
    law = written(own, eager)
    samples = Stepwise().sample(own, eager, own.prior(torch.zeros(DRAWS, dtype=torch.long), noise), noise)
    assert max(map(len, samples.tokens)) == 3
    assert fit(law, [tuple(found.tolist()) for found in samples.tokens]) > LEAST_P
    longer = own.likelihood(eager, batch_of(row((0, 1, 0, 1))), noise.select(torch.arange(1)), 8)
    assert longer.nll.tolist() == [math.inf]


def infilling_is_the_conditional_law() -> None:
    """4.17: x with probability proportional to q(x) times the chance that a uniform subset of x reads as the start."""
    own = process()
    for law, state in ((LAW, (1,)), (LAW, (0, 1)), (FLANKED, (2, 2)), (FLANKED, (2, 0))):
        chance = {}
        for sequence, q in law.items():
            ways = sum(tuple(s) == state for s in itertools.combinations(sequence, len(state)))
            chance[sequence] = q * ways / max(1, math.comb(len(sequence), len(state)))
        wanted = {s: p / sum(chance.values()) for s, p in chance.items()}
        assert distance(written(own, Table(law, own), state), wanted) < 1e-12
    # Where a start fits in one way and sequences are equally long, that is q given the fixed tokens.
    law = {(0, 1, 2): 0.2, (0, 2, 2): 0.1, (0, 1, 1): 0.3, (1, 2, 1): 0.4}
    wanted = {s: q / 0.6 for s, q in law.items() if s[0] == 0}
    for closed in (None, [True, False]):
        assert distance(written(own, Table(law, own), (0,), closed), wanted) < 1e-12


def closed_gaps_stay_closed() -> None:
    """Flanks are kept by all draws, and the law is that of the open gaps, step by step."""
    own = process()
    for network in (Table(FLANKED, own), guess(own)):
        for closed in ([True, False, True], [False, True, False], [True, False, False]):
            noise = Noise.start(9, torch.arange(DRAWS))
            start = start_of((2, 2), DRAWS, closed)
            rows = [tuple(found.tolist()) for found in Stepwise().sample(own, network, start, noise).tokens]
            assert fit(written(own, network, (2, 2), closed), rows) > LEAST_P
            if closed[1]:
                assert all((2, 2) in itertools.pairwise(found) for found in rows)
            assert all(found[0] == 2 for found in rows) or not closed[0]
            assert all(found[-1] == 2 for found in rows) or not closed[2]


def constraints_hold_around_closed_gaps() -> None:
    """No draw breaks a rule or a flank, however much the network would like to."""
    own, count = process(limit=5), 2000
    rules = ConstraintSet(built(["forbid:CA", "length:4..5", "composition:B:..1"]), TOKENIZER, range(1, 6))
    closed = [True, False, True]
    noise = Noise.start(2, torch.arange(count))
    rows = Stepwise().sample(own, guess(own), start_of((2, 2), count, closed), noise, rules).tokens
    assert all(accepts(rules, found.tolist()) for found in rows)
    assert all(found[0] == found[-1] == 2 for found in rows) and {len(found) for found in rows} == {4, 5}


LAWS: dict[str, Callable[[], None]] = {
    law.__name__: law
    for law in (
        the_optimum_writes_the_data,
        the_bound_is_tight_at_the_optimum,
        the_bound_is_the_expectation_over_orders,
        estimates_are_unbiased,
        states_are_seen_evenly,
        losses_are_unbiased,
        runs_follow_the_optimum,
        runs_end_at_the_limit,
        infilling_is_the_conditional_law,
        closed_gaps_stay_closed,
        constraints_hold_around_closed_gaps,
    )
}

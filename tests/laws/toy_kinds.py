"""One toy for each kind of transition: a state half-way, and the kernel out of it from first principles."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import chisquare
from torch import Tensor

from core.data.layout import Layout
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.guidance.constraint_set import ConstraintSet
from core.processes.autoregressive import Autoregressive
from core.processes.base import Network, Process
from core.processes.mixture_flow import MixtureFlow
from core.processes.transitions.base import Transition
from core.tokenizers.base import Vocabulary
from tests.laws.test_constraints import Letters, built
from tests.laws.toy_edit import ToyEdit
from tests.laws.toy_insert import ToyInsert
from tests.laws.toys import neighbours

VOCABULARY = Vocabulary(3)
TOKENIZER = Letters("ABC")
LONGEST = 5
DRAWS = 20_000
# What a step leads to: the tokens of the sequence, and whether it is finished.
Outcome = tuple[tuple[int, ...], bool]


@dataclass(frozen=True, eq=False)
class Kind:
    """`sites` are log-probabilities `[S, K]` of independent choices, the kernel's factors.

    `outcome` is what K-ary choices, one a site, lead to. `jump` holds the probabilities with
    which sites jump, and `posterior` where to, where the kind is a substitution.
    """

    process: Process
    network: Network
    batch: SequenceBatch
    times: tuple[float, float]
    sites: Tensor
    outcome: Callable[[tuple[int, ...]], Outcome]
    weights: Tensor
    jump: Tensor | None = None
    posterior: Tensor | None = None

    def transition(self, count: int = 1) -> Transition:
        return self.process.transition(self.network, self.batch.fork(count), *self.times)

    def law(self, tilt: Tensor | None = None) -> dict[Outcome, float]:
        """The kernel by enumeration of all choices, each weighed by the tilt at what it chooses."""
        sites = self.sites
        if tilt is not None:
            given = tilt.reshape(len(sites), -1)
            sites = (sites + torch.nn.functional.pad(given, (0, sites.shape[1] - given.shape[1]))).log_softmax(-1)
        return self._collected(sites.exp())

    def _collected(self, probs: Tensor) -> dict[Outcome, float]:
        found: dict[Outcome, float] = defaultdict(float)
        for labels in itertools.product(*(row.nonzero()[:, 0].tolist() for row in probs)):
            found[self.outcome(labels)] += float(
                torch.stack([row[k] for row, k in zip(probs, labels, strict=True)]).prod()
            )
        return found

    def law_under(self, accepts: Callable[[Sequence[int]], bool]) -> dict[Outcome, float]:
        """The same under constraints, as each kind promises it."""
        if self.posterior is not None:
            return self._substituted(accepts)
        allowed = (lambda o: accepts(o[0])) if isinstance(self.process, ToyEdit) else self._reachable(accepts)
        kept = {outcome: p for outcome, p in self.law().items() if allowed(outcome)}
        return {outcome: p / sum(kept.values()) for outcome, p in kept.items()}

    def _reachable(self, accepts: Callable[[Sequence[int]], bool]) -> Callable[[Outcome], bool]:
        every = itertools.chain(*(itertools.product(range(3), repeat=n) for n in range(1, LONGEST + 1)))
        goals = [goal for goal in every if accepts(goal)]
        inside = _subsequence if isinstance(self.process, ToyInsert) else lambda part, goal: goal[: len(part)] == part
        return lambda o: accepts(o[0]) if o[1] else any(inside(o[0], goal) for goal in goals)

    def _substituted(self, accepts: Callable[[Sequence[int]], bool]) -> dict[Outcome, float]:
        """Sites jump on their own; where to is drawn jointly, with the sites that stay away still open."""
        assert self.jump is not None and self.posterior is not None
        shown = self.batch.tokens.flatten().tolist()
        every = list(itertools.product(*(row.nonzero()[:, 0].tolist() for row in self.posterior)))
        goals = {goal: float(_picked(self.posterior, goal).prod()) for goal in every if accepts(goal)}
        found: dict[Outcome, float] = defaultdict(float)
        for moves in itertools.product((False, True), repeat=len(shown)):
            chance = torch.where(torch.tensor(moves), self.jump, 1 - self.jump).prod()
            for goal, p in goals.items() if chance > 0 else ():
                after = tuple(new if move else old for new, old, move in zip(goal, shown, moves, strict=True))
                found[after, False] += float(chance) * p / sum(goals.values())
        return found


def _picked(probs: Tensor, labels: tuple[int, ...]) -> Tensor:
    return probs[torch.arange(len(labels)), torch.tensor(labels)]


def _subsequence(part: tuple[int, ...], goal: tuple[int, ...]) -> bool:
    left = iter(goal)
    return all(token in left for token in part)


def one(tokens: list, fixed: list | None = None) -> SequenceBatch:
    """A batch of one sequence."""
    row = torch.tensor([tokens])
    layout = Layout.padded(torch.tensor([len(tokens)]), len(tokens))
    return SequenceBatch(row, layout, fixed=None if fixed is None else torch.tensor([fixed]))


def substitution(source: Any, tokens: list, fixed: list | None = None, fields: int = 0) -> Kind:
    support = torch.ones(fields, 3, dtype=torch.bool) if fields else None
    process = MixtureFlow(VOCABULARY, source=source, support=support, limit=LONGEST).double()
    network, batch = neighbours(VOCABULARY, 3), one(tokens, fixed)
    shown = batch.tokens.flatten()
    final = shown < 3 if source == "mask" else torch.zeros_like(shown, dtype=torch.bool)
    if batch.fixed is not None:
        final = final | batch.fixed.flatten()
    # kappa = t
    jump = torch.where(final, 0.0, (0.6 - 0.3) / (1 - 0.3)).double()
    posterior = network(batch, None)[0].softmax(-1)
    probs = torch.zeros(len(shown), VOCABULARY.total, dtype=torch.float64)
    probs[:, :3] = jump[:, None] * posterior
    probs[torch.arange(len(shown)), shown] += 1 - jump
    known = torch.nn.functional.one_hot(shown.clamp_max(2), 3).double()
    held = torch.where(final[:, None], known, posterior)
    return Kind(
        process, network, batch, (0.3, 0.6), probs.log(), lambda labels: (labels, False),
        torch.randn(1, len(shown), 3).double(), jump, held,
    )  # fmt: skip


def append() -> Kind:
    process, network = Autoregressive(VOCABULARY, limit=LONGEST), neighbours(VOCABULARY, 4)
    read = one([VOCABULARY.bos, 0, 2])
    sites = network(read, None)[0, -1:].log_softmax(-1)
    outcome = lambda o: ((0, 2), True) if o[0] == 3 else ((0, 2, *o), False)  # noqa: E731
    return Kind(process, network, one([0, 2]), (2.0, 3.0), sites, outcome, torch.randn(1, 4).double())


def insert() -> Kind:
    process, network = ToyInsert(VOCABULARY, limit=5), neighbours(VOCABULARY, 4)
    logits = network(one([VOCABULARY.bos, 0, 2]), None)[0]
    sites = torch.cat([logits[:, :3].flatten(), logits[:1, 3]])[None].log_softmax(-1)

    def outcome(labels: tuple[int, ...]) -> Outcome:
        slot, token = divmod(labels[0], 3)
        return ((0, 2), True) if slot == 3 else ((*(0, 2)[:slot], token, *(0, 2)[slot:]), False)

    return Kind(process, network, one([0, 2], [False, True]), (0.0, 1.0), sites, outcome, torch.randn(1, 10).double())


def edit() -> Kind:
    process, network = ToyEdit(VOCABULARY), neighbours(VOCABULARY, 4)
    batch, chance = one([2, 0, 1], [False, False, True]), (0.6 - 0.3) / (1 - 0.3)
    probs = chance * network(batch, None)[0].softmax(-1)
    probs[torch.arange(3), batch.tokens[0]] += 1 - chance
    probs[2] = torch.tensor([0.0, 1, 0, 0])
    outcome = lambda labels: (tuple(k for k in labels if k < 3), False)  # noqa: E731
    return Kind(process, network, batch, (0.3, 0.6), probs.log(), outcome, torch.randn(1, 3, 4).double())


_MASK = VOCABULARY.mask
KINDS: dict[str, Callable[[], Kind]] = {
    "append": append,
    "mask": lambda: substitution("mask", [_MASK, 1, _MASK]),
    "uniform": lambda: substitution("uniform", [2, 0, 1], [False, True, False]),
    "fields": lambda: substitution("mask", [[_MASK, 1], [_MASK, _MASK]], fields=2),
    "insert": insert,
    "edit": edit,
}


def constraints(*items: str, longest: int = LONGEST) -> ConstraintSet:
    return ConstraintSet(built(items), TOKENIZER, range(1, longest + 1))


def accepts(rules: ConstraintSet, sequence: Sequence[int]) -> bool:
    """The members' own check, without any automaton."""
    return all(rule.check(TOKENIZER.decode(sequence)) for rule in rules.constraints)


def outcomes(kind: Kind, transition: Transition, rules: ConstraintSet | None = None, seed: int = 3) -> list[Outcome]:
    """One draw from each row of a transition made for DRAWS rows."""
    running = None if rules is None else rules.start(DRAWS)
    move = transition.draw(kind.batch.fork(DRAWS), Noise.start(seed, torch.arange(DRAWS)), rules, running)
    rows, lengths = move.batch.tokens.flatten(1).tolist(), move.batch.layout.lengths.tolist()
    fields = kind.batch.tokens[0, 0].numel()
    triples = zip(rows, lengths, move.done.tolist(), strict=True)
    return [(tuple(row[: length * fields]), done) for row, length, done in triples]


def fit(expected: dict[Any, float], found: Sequence[Any]) -> float:
    """p of the chi-square test, 0 where something impossible was found; rare cells are pooled."""
    counts = Counter(found)
    if any(expected.get(outcome, 0.0) <= 0 for outcome in counts):
        return 0.0
    cells = sorted((p * len(found), counts[outcome]) for outcome, p in expected.items() if p > 0)
    while len(cells) > 1 and cells[0][0] < 10:
        cells = sorted([(cells[0][0] + cells[1][0], cells[0][1] + cells[1][1]), *cells[2:]])
    if len(cells) < 2:
        return 1.0
    wanted, seen = zip(*cells, strict=True)
    return float(chisquare(seen, [w * sum(seen) / sum(wanted) for w in wanted]).pvalue)

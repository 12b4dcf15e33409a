"""Laws of a constraint."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

import torch

from core.data.noise import Noise, Purpose
from core.errors import UserError, as_user_error
from core.guidance.constraint_set import ConstraintSet
from core.guidance.constraints.base import Constraint, Projection
from domains.tasks import default_task
from pipelines.check._law import require

_LONGEST = 24  # of the sequences that a constraint is tried on


def laws(member: type[Constraint], *arguments: str) -> Iterator[str]:
    with as_user_error(member.__name__):
        rule = member(*arguments)
    yield require(bool(rule.name), "it has a name")
    if isinstance(rule, Projection):
        points = torch.randn(8, 6, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        nearest = rule.project(points)
        yield require(torch.allclose(rule.project(nearest), nearest), "what obeys is not moved")
        return
    tokenizers = default_task("bio").package("tokenizers").registry.members().values()
    tokenizer = next(member() for member in tokenizers if rule.kind in (None, member.kind))
    constraints = ConstraintSet([rule], tokenizer, range(1, _LONGEST + 1))
    (bound,) = constraints.constraints
    drawn = _drawn(constraints, tokenizer.vocabulary.size)
    passing = all(bound.check(tokenizer.decode(row)) for row in drawn)
    yield require(passing, "whatever the automaton lets through passes check")
    for row in _tried(drawn, tokenizer.vocabulary.size):
        accepted = bool(constraints.feasible(torch.tensor([row]), torch.tensor([len(row)])))
        if accepted != bound.check(tokenizer.decode(row)):
            side = "lets through" if accepted else "refuses"
            raise UserError(
                f"law broken: compile and check agree; the automaton {side} {tokenizer.decode(row)}, check does not"
            )
    yield "ok  compile and check agree"


def _drawn(constraints: ConstraintSet, letters: int) -> list[list[int]]:
    """A few sequences of every length that the constraint allows."""
    rows = []
    for length in constraints.feasible_lengths:
        uniform = Noise.start(0, torch.arange(8) + 8 * length).uniform(length, Purpose.TOKEN)
        laws, free = torch.zeros(8, length, letters), torch.full((8, length), -1)
        rows += constraints.draw(laws, torch.full((8,), length), uniform, free).tolist()
    return rows


def _tried(drawn: Sequence[Sequence[int]], letters: int) -> Iterator[list[int]]:
    """Sequences on both sides of a rule: all pairs, random ones, and drawn ones with one letter changed."""
    yield from ([*pair] for length in (1, 2) for pair in itertools.product(range(letters), repeat=length))
    source = random.Random(0)
    for row in drawn:
        yield [source.randrange(letters) for _ in row]
        changed = [*row]
        changed[source.randrange(len(row))] = source.randrange(letters)
        yield changed

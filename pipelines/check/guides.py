"""Laws of a guide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int
from scipy.stats import chi2, kstest
from torch import Tensor

from core.decoding.base import Samples
from core.decoding.stepwise import Stepwise
from core.errors import as_user_error
from core.guidance.guides.base import Guide
from core.processes.transitions import registry as transitions
from pipelines.check._law import LEAST_P, alike, require
from pipelines.check._toys import Toy, one_of_each_kind, toys

_IDS = torch.arange(12)
_STEPS = 4
_DRAWS = 2000
# None, and one whose effect is below all that a guide does on purpose, though above the rounding of fp64.
_FAINT, _MOVED = (0.0, 1e-9), 1e-6


def laws(member: type[Guide]) -> Iterator[str]:
    known = frozenset(transitions.members().values())
    yield require(bool(member.supports) and member.supports <= known, "it supports kinds of transition that there are")
    for law in sorted(member.broken_laws):
        yield f"--  {law}: a law that it breaks by definition"
    tried = [toy for toy in one_of_each_kind(toys()) if toy.kind in member.supports]
    yield require(bool(tried), "a registered process takes steps of a kind that it supports")
    moved = []
    for toy in tried:
        moved.append((yield from _guided(member, toy)))
    # Not of every kind: numbers that have no noise have one way to go.
    yield require(any(moved), "its own strength changes what is drawn")


def _guided(member: type[Guide], toy: Toy) -> Generator[str, None, bool]:
    """The laws on one process; returns whether the guide does anything there."""
    context = toy.context()
    with as_user_error(member.__name__):
        strong = max(2.0, member().strength)

    def drawn(strength: float, ids: Int[Tensor, " N"] = _IDS, **how: bool) -> Samples:
        guide = member()
        guide.strength = strength
        return toy.drawn(Stepwise(_STEPS, [guide], context), ids, **how)

    plain, together = toy.drawn(Stepwise(_STEPS), _IDS).tokens, drawn(strong).tokens
    if "strength" not in member.broken_laws:
        same = all(alike(drawn(strength).tokens, plain, _MOVED) for strength in _FAINT)
        if not same:
            # A guide that draws for itself gives other sequences of the same law.
            many = torch.arange(_DRAWS)
            free = toy.drawn(Stepwise(_STEPS), many, seed=6).tokens
            same = all(_same_law(drawn(strength, many).tokens, free) for strength in _FAINT)
        yield require(same, f"{toy.key}: strength 0 is the unguided law, and so is one that goes to 0")
    if "batch" not in member.broken_laws:
        few = torch.tensor([7, 3])
        same = alike(drawn(strong, _IDS[few]).tokens, [together[row] for row in few.tolist()])
        yield require(same, f"{toy.key}: guided the same alone and in a batch")
    yield require(toy.kept(drawn(strong, held=True)), f"{toy.key}: fixed sites never move")
    if toy.rules is not None:
        yield require(toy.obeyed(drawn(strong, ruled=True)), f"{toy.key}: constraints hold")
    return not alike(together, plain)


def _same_law(rows: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Whether two samples of many rows may have one law: of lengths and first tokens, or of first numbers."""
    if rows[0].is_floating_point():
        one, other = ([float(row.flatten()[0]) for row in each] for each in (rows, others))
        return float(kstest(one, other).pvalue) > LEAST_P
    counts = [Counter((len(row), *row[:1].tolist()) for row in each) for each in (rows, others)]
    table = np.array([[count[outcome] for outcome in sorted(counts[0] | counts[1])] for count in counts])
    # Few draws of an outcome say little: rare ones count together.
    rare = table.sum(0) < 20
    one, other = np.column_stack([table[:, ~rare], table[:, rare].sum(1)]).astype(float)
    # The chi-square of two samples of as many rows; an outcome that neither has says nothing.
    gaps = (one - other) ** 2 / np.maximum(one + other, 1)
    return float(chi2.sf(gaps.sum(), max(1, len(gaps) - 1))) > LEAST_P

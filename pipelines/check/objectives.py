"""Laws of an objective."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from core.errors import as_user_error
from core.guidance.objectives.base import Objective
from pipelines.check._law import require

_SAMPLES = ("ACGTTGCATGA", "ACDEFGHIK", "KKLLKKLLKK", "GIGKFLHSAKKFGKAFVGEIMNS", "NGNGNG", "WWWW")


def laws(member: type[Objective], *arguments: str) -> Iterator[str]:
    with as_user_error(member.__name__):
        objective = member(*arguments)
    scores = np.asarray(objective.score(_SAMPLES), dtype=float)
    yield require(scores.shape == (len(_SAMPLES),), "score gives one number a sequence")
    again = np.asarray(objective.score(_SAMPLES), dtype=float)
    yield require(np.array_equal(scores, again, equal_nan=True), "the same sequences score the same")
    alone = np.concatenate([np.asarray(objective.score([s]), dtype=float) for s in _SAMPLES])
    yield require(np.allclose(scores, alone, equal_nan=True), "a score does not depend on the batch")
    stated = member.direction in ("max", "min") and bool(member.source) and member.unit is not None
    yield require(stated, "direction, unit and source are stated")

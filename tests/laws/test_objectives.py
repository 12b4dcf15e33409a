"""Laws of every objective, of core and of the domains."""

import math

import numpy as np
import pytest

from core.guidance.objectives.base import Objective
from domains.tasks import DOMAINS, default_task

# Peptides, DNA of 8 and more bases, four sites of a protein, and 32 times one state.
SEQUENCES = ["ACGTTGCATGA", "ACDEFGHIK", "KKLLKKLLKK", "GIGKFLHSAKKFGKAFVGEIMNS", "WWWW", "AA", "ACGTTGCA", "A" * 32]
MEMBERS = [(d, key) for d in DOMAINS for key in default_task(d).objectives.keys()]


def check_objective(objective: Objective) -> None:
    scores = objective.score(SEQUENCES)
    assert scores.shape == (len(SEQUENCES),)
    assert np.isfinite(scores).any() and not np.isinf(scores).any()
    assert np.array_equal(scores, objective.score(SEQUENCES), equal_nan=True)
    alone = np.concatenate([objective.score([sequence]) for sequence in SEQUENCES])
    assert np.allclose(alone, scores, equal_nan=True, rtol=0, atol=1e-9)
    assert objective.direction in ("max", "min") and objective.unit is not None and objective.source


@pytest.mark.parametrize("domain,key", MEMBERS)
def test_objective(domain: str, key: str, request: pytest.FixtureRequest) -> None:
    member = default_task(domain).objectives.get(key)
    if member.data is not None:
        request.getfixturevalue("motif_data")
    check_objective(member())


def test_planted_fault_scores_of_the_batch_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = default_task("bio").objectives.get("gravy")()
    right = objective.score
    monkeypatch.setattr(objective, "score", lambda sequences: right(sequences) - np.mean(right(sequences)))
    with pytest.raises(AssertionError):
        check_objective(objective)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_planted_fault_scores_without_a_value_are_caught(value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    objective = default_task("bio").objectives.get("gravy")()
    monkeypatch.setattr(objective, "score", lambda sequences: np.full(len(sequences), value))
    with pytest.raises(AssertionError):
        check_objective(objective)

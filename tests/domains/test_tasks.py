"""A task is what its YAML says, unless a run says otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import UserError
from domains.tasks import Task


def config(**task: Any) -> dict[str, Any]:
    return {"domain": "bio", "task": {"name": "peptide", **task}}


def test_a_run_without_changes_has_the_task_of_the_yaml() -> None:
    assert Task.of(config()) == Task.load("bio", "peptide")


def test_what_the_run_says_counts() -> None:
    task = Task.of(config(metrics=["validity", "novelty"], tokenizer={"name": "amino_acid"}))
    assert task.metrics == ("validity", "novelty") and task.pretrained == Task.load("bio", "peptide").pretrained


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "peptid"}, "domain bio has no task 'peptid': did you mean 'peptide'"),
        ({"metrics": ["validty"]}, "unknown metric 'validty': did you mean 'validity'"),
        ({"metrics": 3}, "task peptide: "),
        ({"colour": "red"}, "task peptide: .*colour"),
    ],
)
def test_what_a_task_does_not_have_is_refused(task: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Task.of(config(**task))

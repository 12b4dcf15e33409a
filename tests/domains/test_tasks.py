"""A task is what its YAML says, unless a run says otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from core.errors import UserError
from core.guidance.items import members
from domains.tasks import Task


def config(**task: Any) -> dict[str, Any]:
    return {"domain": "bio", "task": {"name": "peptide", **task}}


def test_a_run_without_changes_has_the_task_of_the_yaml() -> None:
    assert Task.of(config()) == Task.load("bio", "peptide")


def test_what_the_run_says_counts() -> None:
    task = Task.of(config(metrics=["validity", "novelty"], tokenizer={"name": "amino_acid"}))
    assert task.metrics == ("validity", "novelty") and task.pretrained == Task.load("bio", "peptide").pretrained


def test_a_task_without_a_bundled_model_says_how_to_get_one() -> None:
    task = Task.load("bio", "regulatory_dna")
    with pytest.raises(
        UserError, match="^task regulatory_dna has no bundled model: train one with `motif prepare` and"
    ):
        _ = task.pretrained_folder
    assert Task.load("bio", "peptide").pretrained_folder.is_dir()


@pytest.mark.parametrize("name", ["peptide", "regulatory_dna"])
def test_members_of_another_kind_of_sequence_are_refused(name: str) -> None:
    task = Task.load("bio", name)
    tokenizer = task.make_tokenizer()
    for registry in (task.objectives, task.constraints):
        for key, member in registry.members().items():
            fits = member.kind in (None, tokenizer.kind)
            message = f"{registry.name} {key} reads {member.kind}, but this task writes {tokenizer.kind}: drop it"
            if fits:
                tokenizer.refuse_others(f"{registry.name} {key}", member.kind)
            else:
                with pytest.raises(UserError, match=message):
                    members([key], registry, tokenizer)


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

"""A task is what its YAML says, unless a run says otherwise."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.errors import UserError
from core.guidance.constraint_set import ConstraintSet
from core.guidance.items import members, rules, targets
from core.guidance.objectives.base import Scoreboard
from domains.base import MetricContext
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


@pytest.mark.parametrize("name", ["peptide", "regulatory_dna", "ehrlich"])
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


# A sequence of each task that has goals, at which all of them have a value.
LANDSCAPES = {"tfbind8": "ACGTACGT", "gb1": "VDGV", "ehrlich": "A" * 32}


@pytest.mark.parametrize("name", LANDSCAPES)
def test_what_a_task_seeks_unless_told_can_be_measured(name: str, motif_data: Path) -> None:
    task = Task.load("bio", name)
    tokenizer = task.make_tokenizer()
    board = Scoreboard(targets(task.goals, task.objectives, tokenizer), tokenizer.canonical)
    sequence = LANDSCAPES[name]
    (bound,) = ConstraintSet(rules(task.rules, task.constraints, tokenizer), tokenizer, range(1, 40)).constraints
    assert bound.check(sequence) and not bound.check(sequence + sequence[-1]) and len(sequence) == task.longest
    assert board.targets and np.isfinite(board.score([sequence])).all() and board.calls == 1
    for metric in task.metrics:
        context = MetricContext(tokenizer=tokenizer)
        assert task.package("metrics").registry.get(metric)().compute([sequence] * 2, [sequence], context)


def test_every_task_with_a_landscape_is_tried() -> None:
    folder = Path(str(resources.files("configs"))) / "task" / "bio"
    assert {file.stem for file in folder.glob("*.yaml") if Task.load("bio", file.stem).goals} == set(LANDSCAPES)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ({"name": "peptid"}, "domain bio has no task 'peptid': did you mean 'peptide'"),
        ({"metrics": ["validty"]}, "unknown metric 'validty': did you mean 'validity'"),
        ({"metrics": 3}, "task peptide: "),
        ({"goals": ["gravi:max"]}, "unknown objective 'gravi': did you mean 'gravy'"),
        ({"rules": ["lenght:8"]}, "unknown constraint 'lenght': did you mean 'length'"),
        ({"colour": "red"}, "task peptide: .*colour"),
    ],
)
def test_what_a_task_does_not_have_is_refused(task: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Task.of(config(**task))

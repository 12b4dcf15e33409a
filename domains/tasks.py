"""Tasks: what a domain can make, as values."""

from __future__ import annotations

import importlib
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError, as_user_error
from core.guidance.constraints import registry as core_constraints
from core.guidance.items import parse_item
from core.guidance.objectives import registry as core_objectives
from core.registry import Registry, did_you_mean
from core.tokenizers.base import Tokenizer

DOMAINS = ("bio",)


@dataclass(frozen=True)
class Task:
    """One thing that a domain can make, as its YAML describes it.

    data: the named set that `prepare` reads unless told, None where there is none. pretrained: the bundled
    checkpoint, None where there is none. longest: the longest sequence that is prepared and modelled
    unless told. conditions: headers that condition a model wherever a file has them and `columns=` names
    none: `class`, one header, and `scalars`, a list. goals: the objectives that a design seeks unless told.
    rules: the constraints that sequences of the task obey, beside those asked for.
    """

    domain: str
    name: str
    paper: str
    tokenizer: Mapping[str, Any]
    data: str | None
    pretrained: str | None
    longest: int
    metrics: tuple[str, ...]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    goals: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()

    @staticmethod
    def load(domain: str, name: str) -> Task:
        """The task of `configs/task/<domain>/<name>.yaml`."""
        file = Path(str(importlib.resources.files("configs"))) / "task" / domain / f"{name}.yaml"
        if not file.is_file():
            known = tuple(sorted(path.stem for path in file.parent.glob("*.yaml")))
            raise UserError(f"domain {domain} has no task {name!r}{did_you_mean(name, known)}")
        body = yaml.safe_load(file.read_text(encoding="utf-8"))
        return Task(domain=domain, **_with_tuples(body))

    @staticmethod
    def of(config: Mapping[str, Any]) -> Task:
        """The task of a run, its YAML and what the run's configuration says otherwise.

        Raises `UserError` for a task, a key, or a member named in it that there is not.
        """
        task = Task.load(config["domain"], config["task"]["name"])
        with as_user_error(f"task {task.name}"):
            task = replace(task, **_with_tuples(config["task"]))
        for name in task.metrics:
            task.package("metrics").registry.get(name)
        for items, registry in ((task.goals, task.objectives), (task.rules, task.constraints)):
            for item in items:
                registry.get(parse_item(item).name)
        return task

    def package(self, room: str) -> Any:
        """A room of the task's domain, such as `metrics` or `render`."""
        return importlib.import_module(f"domains.{self.domain}.{room}")

    def make_tokenizer(self, settings: Mapping[str, Any] | None = None) -> Tokenizer[Any]:
        """The tokenizer of the task, or one with saved settings."""
        chosen = dict(settings or self.tokenizer)
        return self.package("tokenizers").registry.get(chosen.pop("name"))(**chosen)

    @property
    def objectives(self) -> Registry[Any]:
        return core_objectives.extended(f"domains.{self.domain}.objectives")

    @property
    def constraints(self) -> Registry[Any]:
        return core_constraints.extended(f"domains.{self.domain}.constraints")

    @property
    def pretrained_folder(self) -> Path:
        """The bundled checkpoint; `UserError` where there is none."""
        if self.pretrained is None:
            raise UserError(
                f"task {self.name} has no bundled model: train one with `motif prepare` and `motif train "
                f"domain={self.domain} task={self.name}`, and pass checkpoint=FOLDER"
            )
        return Path(str(importlib.resources.files(f"domains.{self.domain}"))) / "pretrained" / self.pretrained


def _with_tuples(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a YAML says of a task, its lists as tuples."""
    return {**body, **{key: tuple(body[key]) for key in ("metrics", "goals", "rules") if key in body}}


def default_task(domain: str) -> Task:
    """What `domain=` alone means."""
    if domain not in DOMAINS:
        raise UserError(f"unknown domain {domain!r}{did_you_mean(domain, DOMAINS)}")
    return importlib.import_module(f"domains.{domain}.tasks").DEFAULT

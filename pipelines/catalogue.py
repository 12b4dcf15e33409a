"""What there is: `motif list`, `cite`, `data`, `check` and `rerun`."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from core.backbones.mixers import registry as mixers
from core.decoding import registry as samplers
from core.errors import UserError
from core.guidance.guides import registry as guides
from core.processes import registry as processes
from core.processes.schedules import registry as schedules
from core.processes.transitions import registry as transitions
from core.registry import Paper, Registry
from domains.tasks import DOMAINS, default_task
from pipelines.data_sets import data_folder
from pipelines.run import read_run

CORE = (processes, transitions, schedules, mixers, samplers, guides)


def registries() -> dict[str, Registry[Any]]:
    """Every registry by name; those of domains as `bio.objective`."""
    found: dict[str, Registry[Any]] = {registry.name: registry for registry in CORE}
    for domain in DOMAINS:
        task = default_task(domain)
        rooms = (task.package("tokenizers"), task.package("readers"), task.package("metrics"))
        for registry in (task.objectives, task.constraints, *(room.registry for room in rooms)):
            found[f"{domain}.{registry.name}"] = registry
    return found


def listing() -> dict[str, Any]:
    """Tasks and the members of every registry with their papers."""
    config = Path(str(importlib.resources.files("configs")))
    tasks = [f"{path.parent.name}/{path.stem}" for path in sorted((config / "task").rglob("*.yaml"))]
    body: dict[str, Any] = {"task": {name: {"paper": _task_paper(config, name)} for name in tasks}}
    for name, registry in registries().items():
        body[name] = {key: _described(member.paper) for key, member in registry.members().items()}
    return body


def _task_paper(config: Path, name: str) -> str:
    return yaml.safe_load((config / "task" / f"{name}.yaml").read_text(encoding="utf-8"))["paper"]


def _described(paper: Paper) -> dict[str, str]:
    parts = {"paper": paper.key, "title": paper.title, "arxiv": paper.arxiv or "", "deviations": paper.deviations}
    return {key: value for key, value in parts.items() if value}


def citations(run: Path) -> list[str]:
    """The papers behind a run, one line each."""
    config = read_run(run)
    sources: list[tuple[str, Paper]] = []
    sources += _from_checkpoint(config)
    task = default_task(config["domain"])
    for key, registry in (("objectives", task.objectives), ("constraints", task.constraints)):
        for item in config.get(key) or []:
            name = str(item).split(":")[0].split("@")[0]
            sources.append((name, registry.get(name).paper))
    return [f"{name}: {_line(paper)}" for name, paper in sources]


def _from_checkpoint(config: Mapping[str, Any]) -> list[tuple[str, Paper]]:
    if "process" in config:
        model = config
    elif config["verb"] in ("generate", "evaluate"):
        from core.training.checkpoint import read_config

        task = default_task(config["domain"])
        model = read_config(Path(config.get("checkpoint") or task.pretrained_folder))
    else:
        return []
    found = [(model["process"]["name"], processes.get(model["process"]["name"]).paper)]
    for layer in model["model"]["pattern"]:
        found.append((layer["name"], mixers.get(layer["name"]).paper))
    return found


def _line(paper: Paper) -> str:
    text = paper.title + (f", arXiv {paper.arxiv}" if paper.arxiv else "")
    return text + (f" ({paper.deviations})" if paper.deviations else "")


def data_sets() -> list[dict[str, Any]]:
    """The named data sets, and whether each is present."""
    folder = Path(str(importlib.resources.files("configs"))) / "data"
    found = []
    for file in sorted(folder.glob("*.yaml")):
        body = yaml.safe_load(file.read_text(encoding="utf-8"))
        found.append({**body, "present": (data_folder() / body["path"]).is_file()})
    return found


def data_get(name: str) -> str:
    """Where a named set lies, or how to obtain it: no set here has a single downloadable file."""
    for entry in data_sets():
        if entry["name"] == name:
            place = data_folder() / entry["path"]
            if entry["present"]:
                return f"{name}: present, {place}"
            raise UserError(f"{name}: put the file of {entry['upstream']} at {place} (sha256 {entry['sha256']})")
    raise UserError(f"unknown data set {name!r}: known are {', '.join(e['name'] for e in data_sets())}")


def rerun_words(run: Path, out: str | None) -> tuple[str, dict[str, Any]]:
    """The verb and configuration that repeat a run, into `out`."""
    config = read_run(run)
    verb = config.pop("verb")
    config["out"] = out or f"{config['out']}-rerun"
    return verb, config


def as_text(body: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    """A listing to read."""
    lines: list[str] = []
    for group, members in body.items():
        if members:
            lines.append(group)
            lines += [f"  {key:<24} {entry.get('title', entry.get('paper', ''))}" for key, entry in members.items()]
    return "\n".join(lines)


def as_json(body: Mapping[str, Any] | Sequence[Any]) -> str:
    return json.dumps(body, indent=1)

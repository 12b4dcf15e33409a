"""What there is and what was used: `motif list`, `cite` and `rerun`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.backbones.memories import registry as fusions
from core.backbones.mixers import registry as mixers
from core.decoding import registry as samplers
from core.errors import UserError
from core.guidance.guides import registry as guides
from core.processes import registry as processes
from core.processes.schedules import registry as schedules
from core.processes.transitions import registry as transitions
from core.registry import Paper, Registry
from domains.tasks import DOMAINS, Task, default_task
from pipelines.citations import used
from pipelines.compose import config_folder, configurations
from pipelines.run import read_run

_REPEATED = ("prepare", "train", "finetune", "generate", "evaluate")
CORE = (processes, transitions, schedules, mixers, fusions, samplers, guides)


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
    tasks = [Task.load(path.parent.name, path.stem) for path in sorted((config_folder() / "task").rglob("*.yaml"))]
    body: dict[str, Any] = {"task": {f"{task.domain}/{task.name}": {"paper": task.paper} for task in tasks}}
    for name, registry in registries().items():
        body[name] = {key: _described(member.paper) for key, member in registry.members().items()}
    return body


def _described(paper: Paper) -> dict[str, str]:
    parts = {"paper": paper.key, "title": paper.title, "arxiv": paper.arxiv or "", "deviations": paper.deviations}
    return {key: value for key, value in parts.items() if value}


def bibliography(run: Path) -> str:
    """The papers of every member that a run used, as BibTeX, each paper once."""
    uses: dict[str, tuple[Paper, list[str]]] = {}
    config = read_run(run)
    for role, name, paper in used(config["verb"], config, _model_of(config)):
        own = f"arxiv_{paper.arxiv}" if paper.arxiv else f"motif_{name}"
        key = re.sub(r"[^a-zA-Z0-9]+", "_", own if paper.key == "ours" else paper.key)
        note = f"{role} {name}" + (f", with deviations: {paper.deviations}" if paper.deviations else "")
        notes = uses.setdefault(key, (paper, []))[1]
        notes += [note] if note not in notes else []
    return "\n\n".join(_entry(key, paper, notes) for key, (paper, notes) in uses.items())


def _model_of(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The configuration of the model that a run made or used; None where a file was read or judged without one."""
    verb = config["verb"]
    if verb == "prepare" or (verb == "evaluate" and config["input"]):
        return None
    if verb in ("train", "finetune"):
        return config
    from core.training.checkpoint import read_config
    from pipelines.load import references

    return read_config(Path(config["checkpoint"] or Task.of(config).pretrained_folder), *references(config))


def _entry(key: str, paper: Paper, notes: Sequence[str]) -> str:
    fields = {"title": f"{{{_escaped(paper.title)}}}"}
    if paper.arxiv:
        fields |= {"eprint": paper.arxiv, "archivePrefix": "arXiv"}
    fields["note"] = _escaped("; ".join(notes))
    return "\n".join([f"@misc{{{key},", *(f"  {name} = {{{value}}}," for name, value in fields.items()), "}"])


def _escaped(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text)


def repetition(run: Path, out: str | None) -> tuple[str, dict[str, Any]]:
    """The verb and configuration that repeat a run, into `out` or beside the run."""
    config = read_run(run)
    verb = config.pop("verb")
    if verb not in _REPEATED:
        raise UserError(f"{run}: verb {verb!r} is none of {', '.join(_REPEATED)}")
    missing = set(configurations(verb, [])[0]) - {"command"} - set(config)
    if missing:
        raise UserError(f"{run / 'config.yaml'}: key {min(missing)} is missing, the run is of another version")
    config["out"] = out or f"{config['out']}-rerun"
    config["command"] = shlex.join(["motif", "rerun", str(run), f"out={config['out']}"])
    return verb, config


def as_text(body: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    """A listing to read."""
    lines: list[str] = []
    for group, members in body.items():
        if members:
            lines.append(group)
            lines += [f"  {key:<24} {entry.get('title', entry.get('paper', ''))}" for key, entry in members.items()]
    return "\n".join(lines)

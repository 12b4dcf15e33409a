"""What there is and what was used: `motif list`, `cite` and `rerun`."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from core.backbones.memories import registry as fusions
from core.backbones.mixers import registry as mixers
from core.decoding import registry as samplers
from core.errors import UserError
from core.guidance.guides import registry as guides
from core.guidance.items import parse_item
from core.processes import registry as processes
from core.processes.schedules import registry as schedules
from core.processes.transitions import registry as transitions
from core.registry import Paper, Registry
from domains.tasks import DOMAINS, Task, default_task
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
    for role, name, paper in _used(read_run(run)):
        own = f"arxiv_{paper.arxiv}" if paper.arxiv else f"motif_{name}"
        key = re.sub(r"[^a-zA-Z0-9]+", "_", own if paper.key == "ours" else paper.key)
        note = f"{role} {name}" + (f", with deviations: {paper.deviations}" if paper.deviations else "")
        notes = uses.setdefault(key, (paper, []))[1]
        notes += [note] if note not in notes else []
    return "\n\n".join(_entry(key, paper, notes) for key, (paper, notes) in uses.items())


def _entry(key: str, paper: Paper, notes: Sequence[str]) -> str:
    fields = {"title": f"{{{_escaped(paper.title)}}}"}
    if paper.arxiv:
        fields |= {"eprint": paper.arxiv, "archivePrefix": "arXiv"}
    fields["note"] = _escaped("; ".join(notes))
    return "\n".join([f"@misc{{{key},", *(f"  {name} = {{{value}}}," for name, value in fields.items()), "}"])


def _escaped(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", text)


def _used(config: Mapping[str, Any]) -> Iterator[tuple[str, str, Paper]]:
    """Role, key and paper of every member that a run of this configuration used."""
    verb, task = config["verb"], Task.of(config)
    model = config if verb in ("train", "finetune") else None
    # A file is judged without any model.
    drew = verb == "generate" or (verb == "evaluate" and not config["input"])
    if drew:
        from core.training.checkpoint import read_config
        from pipelines.load import references

        model = read_config(Path(config["checkpoint"] or task.pretrained_folder), *references(config))
    found = [(task.package("tokenizers").registry, task.tokenizer["name"])]
    if model is not None:
        found.append((processes, model["process"]["name"]))
        found += [(schedules, model["process"]["schedule"]["name"])] if "schedule" in model["process"] else []
        found += [(mixers, layer["name"]) for layer in model["model"]["pattern"]]
        found += [(fusions, model["model"]["fusion"]["name"])] if model["model"].get("fusion") else []
        if drew and config["n"]:
            from pipelines.generate import sampler_name

            found.append((samplers, sampler_name(config, processes.get(model["process"]["name"]))))
            found += [(guides, config["guide"]["name"])] if config.get("guide") else []
    for key, registry in (("objectives", task.objectives), ("constraints", task.constraints)):
        found += [(registry, parse_item(item).name) for item in config.get(key) or []]
    if verb in ("generate", "evaluate"):
        found += [(task.package("metrics").registry, name) for name in task.metrics]
    for registry, name in found:
        yield registry.name, name, registry.get(name).paper
    if verb == "finetune" and config["adapt"]["name"] == "lora":
        from core.training.lora import LowRank

        yield "adapt", "lora", LowRank.paper


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

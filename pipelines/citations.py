"""Who is to be cited: every member that a run used, with its paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.backbones.memories import registry as fusions
from core.backbones.mixers import registry as mixers
from core.backbones.pointer_head import PointerHead
from core.decoding import registry as samplers
from core.guidance.guides import registry as guides
from core.guidance.items import parse_item
from core.processes import registry as processes
from core.processes.schedules import registry as schedules
from core.registry import Paper, Registry
from core.training.lora import LowRank
from domains.tasks import Task


def used(verb: str, config: Mapping[str, Any], model: Mapping[str, Any] | None) -> Iterator[tuple[str, str, Paper]]:
    """Role, key and paper of each member of a run, once.

    config: the run's. model: the configuration of the checkpoint that it drew from, judged or made; None
    where there is none.
    """
    task = Task.of(config)
    found = [(task.package("tokenizers").registry, task.tokenizer["name"])]
    found += [] if model is None else _of_model(model)
    judged = verb in ("generate", "evaluate")
    if model is not None and judged and config["n"]:
        from pipelines.generate import sampler_name

        found.append((samplers, sampler_name(config, processes.get(model["process"]["name"]))))
        found += [(guides, config["guide"]["name"])] if config.get("guide") else []
    asked = {"objectives": (task.objectives, ()), "constraints": (task.constraints, task.rules if judged else ())}
    for key, (registry, own) in asked.items():
        found += [(registry, parse_item(item).name) for item in (*own, *(config.get(key) or []))]
    found += [(task.package("metrics").registry, name) for name in task.metrics if judged]
    for registry, name in dict.fromkeys(found):
        yield registry.name, name, registry.get(name).paper
    if model is not None:
        yield from _parts(model)


def _of_model(model: Mapping[str, Any]) -> list[tuple[Registry[Any], str]]:
    """The registered members of a model's configuration."""
    process, network = model["process"], model["model"]
    found: list[tuple[Registry[Any], str]] = [(processes, process["name"])]
    found += [(schedules, process["schedule"]["name"])] if "schedule" in process else []
    encoders = (network.get("encoders") or {}).values()
    for part in (network, *encoders):
        found += [(mixers, name) for name in _mixers((part or {}).get("pattern", ()))]
    return found + ([(fusions, network["fusion"]["name"])] if network.get("fusion") else [])


def _mixers(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for entry in entries:
        yield entry["name"]
        # A mixer may hold another one.
        yield from _mixers([entry["mixer"]] if isinstance(entry.get("mixer"), Mapping) else [])


def _parts(model: Mapping[str, Any]) -> Iterator[tuple[str, str, Paper]]:
    """What no registry lists."""
    if (model["model"].get("fusion") or {}).get("pointer"):
        yield "head", "pointer_head", PointerHead.paper
    if (model.get("adapt") or {}).get("name") == "lora":
        yield "adapt", "lora", LowRank.paper

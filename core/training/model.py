"""A model as a value: process and network, built from plain configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from core.backbones.backbone import Backbone
from core.backbones.network import BackboneNetwork
from core.data.conditions import Conditions
from core.data.mask import MaskSpec
from core.data.sequence_batch import SOURCE
from core.errors import UserError, as_user_error
from core.processes import registry as processes
from core.processes.base import Process
from core.processes.schedules import registry as schedules
from core.tokenizers.base import Vocabulary


class GenerativeModel(nn.Module):
    """A process and the network it asks."""

    def __init__(self, process: Process, network: BackboneNetwork) -> None:
        super().__init__()
        self.process = process
        self.network = network

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.parameters()).device

    @property
    def reads(self) -> frozenset[str]:
        """The memories that the network or the process reads."""
        return frozenset(self.network.encoders) | ({SOURCE} if self.process.pairs else frozenset())

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def build_process(config: Mapping[str, Any], vocabulary: Vocabulary) -> Process:
    """The process that `config` names; a nested `schedule` is built too."""
    options = {key: value for key, value in config.items() if key != "name"}
    if "schedule" in options:
        schedule = options["schedule"]
        if not (isinstance(schedule, Mapping) and isinstance(schedule.get("name"), str)):
            raise UserError(f"process.schedule needs the name of a schedule, got {schedule!r}")
        settings = {key: value for key, value in schedule.items() if key != "name"}
        kind = schedules.get(schedule["name"])
        with as_user_error(kind.__name__):
            options["schedule"] = kind(**settings)
    member = processes.get(config["name"])
    with as_user_error(member.__name__):
        return member(**{"vocabulary": vocabulary, **options})


def build_model(config: Mapping[str, Any], vocabulary: Vocabulary) -> GenerativeModel:
    """The model of `config["process"]` and `config["model"]`, conditioned on what `config["condition"]` describes."""
    conditions = Conditions.of(config.get("condition"))
    process = build_process(config["process"], vocabulary)
    if conditions is not None:
        process.condition_on(conditions)
    options = dict(config["model"])
    packed = bool(options.pop("packed", False))
    encoders = _build_encoders(options.pop("encoders", None) or {}, options, vocabulary)
    if encoders:
        widths = {name: encoder.width for name, encoder in encoders.items()}
        options["fusion"] = {**(options.get("fusion") or {}), "sources": widths}
    given = {
        "vocabulary": vocabulary.total if process.writes == "tokens" else 0,
        "outputs": process.outputs,
        "mask": process.attends,
        "time": process.timed,
        "recalls": process.recalls,
        "condition": 0 if conditions is None else conditions.width,
    }
    with as_user_error("Backbone"):
        backbone = Backbone(**{**given, **options})
    return GenerativeModel(process, BackboneNetwork(backbone, packed, encoders, {SOURCE} if process.pairs else ()))


def _build_encoders(
    entries: Mapping[str, Any], model: Mapping[str, Any], vocabulary: Vocabulary
) -> dict[str, Backbone]:
    """A backbone that sees whole rows for each memory; what an entry leaves out is as in the model around it."""
    found = {}
    for name, entry in entries.items():
        if not str(name).isidentifier() or hasattr(nn.ModuleDict, name):
            raise UserError(f"model.encoders.{name}: call the memory by another word")
        shared = {key: model[key] for key in ("width", "depth", "pattern", "dropout") if key in model}
        given = {"vocabulary": vocabulary.total, "outputs": 0, "mask": MaskSpec("full")}
        with as_user_error(f"model.encoders.{name}"):
            found[name] = Backbone(**{**given, **shared, **(entry or {})})
    return found

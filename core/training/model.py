"""A model as a value: process and network, built from plain configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from core.backbones.backbone import Backbone
from core.backbones.network import BackboneNetwork
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
    """The model of `config["process"]` and `config["model"]`."""
    process = build_process(config["process"], vocabulary)
    options = dict(config["model"])
    packed = bool(options.pop("packed", False))
    given = {
        "vocabulary": vocabulary.total,
        "outputs": process.outputs,
        "mask": process.attends,
        "time": process.timed,
    }
    with as_user_error("Backbone"):
        backbone = Backbone(**{**given, **options})
    return GenerativeModel(process, BackboneNetwork(backbone, packed))

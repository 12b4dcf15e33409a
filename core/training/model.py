"""A model as a value: process and network, built from plain configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from core.backbones.backbone import Backbone
from core.backbones.network import BackboneNetwork
from core.errors import UserError
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
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())


def build_process(config: Mapping[str, Any], vocabulary: Vocabulary) -> Process:
    """The process that `config` names; a nested `schedule` is built too."""
    options = {key: value for key, value in config.items() if key != "name"}
    if "schedule" in options:
        schedule = dict(options["schedule"])
        options["schedule"] = _construct(schedules.get(schedule.pop("name")), schedule)
    return _construct(processes.get(config["name"]), {"vocabulary": vocabulary, **options})


def build_model(config: Mapping[str, Any], vocabulary: Vocabulary) -> GenerativeModel:
    """The model of `config["process"]` and `config["model"]`."""
    process = build_process(config["process"], vocabulary)
    options = dict(config["model"])
    packed = bool(options.pop("packed", False))
    backbone = _construct(
        Backbone,
        {
            "vocabulary": vocabulary.total,
            "outputs": process.outputs,
            "mask": process.attends,
            "time": process.timed,
            **options,
        },
    )
    return GenerativeModel(process, BackboneNetwork(backbone, packed))


def _construct(member: Any, options: Mapping[str, Any]) -> Any:
    """`member(**options)`, a wrong option or value being the user's error."""
    try:
        return member(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{member.__name__}: {error}") from error

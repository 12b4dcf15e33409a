"""Checkpoints opened for use: load once, answer many times."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.data.conditions import Conditions
from core.errors import UserError
from core.guidance.items import targets
from core.guidance.objectives.base import Scoreboard
from core.registry import is_file_reference
from core.tokenizers.base import Tokenizer
from core.training.checkpoint import load_weights, read_config, read_tokenizer
from core.training.model import GenerativeModel, build_model
from domains.tasks import Task

if TYPE_CHECKING:
    from pipelines.generate import Generation


@dataclass(frozen=True, eq=False)
class Loaded:
    """An open checkpoint: loaded once, it answers many times."""

    folder: Path
    config: Mapping[str, Any]
    task: Task
    tokenizer: Tokenizer[Any]
    model: GenerativeModel

    def generate(self, **options: Any) -> Generation:
        """`generate` with this checkpoint; the options are those of the command line.

        Without `out` each call writes to a new folder below `runs`.
        """
        from pipelines.compose import configurations, words_of
        from pipelines.generate import generate

        options = {"out": _unused("runs/generated"), **options}
        here = {"domain": self.task.domain, "task": self.task.name, "checkpoint": self.folder, **self.references}
        return generate(configurations("generate", words_of({**here, **options}))[0], self)

    def score(self, sequences: Sequence[Any], objectives: Sequence[str]) -> NDArray[np.float64]:
        """Raw scores `[N, M]` of any sequences of the task, one column an objective."""
        return Scoreboard(targets(objectives, self.task.objectives, self.tokenizer)).score(sequences)

    @property
    def conditions(self) -> Conditions | None:
        """How the model reads a condition; None where it takes none."""
        return Conditions.of(self.config.get("condition"))

    @property
    def references(self) -> dict[str, str]:
        """The files its process and mixer came from, as the keys that name them again."""
        names = {"process": [self.config["process"]["name"]]}
        names["mixer"] = [layer["name"] for layer in self.config["model"]["pattern"]]
        found = {key: [name for name in each if is_file_reference(name)] for key, each in names.items()}
        return {key: each[0] for key, each in found.items() if each}


def load(
    checkpoint: str | Path, process: str | None = None, mixer: str | None = None, accelerator: str = "auto"
) -> Loaded:
    """Open a checkpoint folder; `UserError` names what is wrong with it.

    `process` and `mixer` name the trusted files of a checkpoint that was trained with such.
    accelerator: cpu, gpu, or auto for a GPU where there is one.
    """
    device = _device(accelerator)
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise UserError(f"checkpoint {folder}: no such folder")
    config = read_config(folder, process, mixer)
    task = Task.load(config["domain"], config["task"]["name"])
    tokenizer = task.make_tokenizer(read_tokenizer(folder))
    model = build_model(config, tokenizer.vocabulary)
    load_weights(folder, model)
    return Loaded(folder, config, task, tokenizer, model.to(device).eval())


def _device(accelerator: str) -> str:
    if accelerator not in ("auto", "cpu", "gpu"):
        raise UserError(f"accelerator={accelerator}: known are auto, cpu and gpu")
    if accelerator == "gpu" and not torch.cuda.is_available():
        raise UserError("accelerator=gpu: this machine has no GPU that torch can use, pass accelerator=auto")
    return "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"


def _unused(out: str) -> str:
    """`out`, numbered if something stands there."""
    places = itertools.chain([out], (f"{out}-{number}" for number in itertools.count(2)))
    return next(place for place in places if not Path(place).exists() and not Path(f"{place}.partial").exists())


def configured(config: Mapping[str, Any], task: Task) -> Loaded:
    """The checkpoint that a run's configuration names, else the task's bundled one; one of another task is refused."""
    loaded = load(config["checkpoint"] or task.pretrained_folder, *references(config), config["accelerator"])
    if (loaded.task.domain, loaded.task.name) != (task.domain, task.name):
        raise UserError(
            f"checkpoint {loaded.folder}: it is of another task than {task.domain}/{task.name}: "
            f"pass domain={loaded.task.domain} task={loaded.task.name}"
        )
    return loaded


def references(config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The process and the mixer that a run's configuration names for a checkpoint trained with them."""
    process, mixer = ((config.get(group) or {}).get("name") for group in ("process", "mixer"))
    return process, mixer

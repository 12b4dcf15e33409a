"""Checkpoints opened for use: load once, answer many times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.tokenizers.base import Tokenizer
from core.training.checkpoint import load_weights, read_config, read_tokenizer
from core.training.model import GenerativeModel, build_model
from domains.tasks import Task


@dataclass(frozen=True, eq=False)
class Loaded:
    """An open checkpoint."""

    folder: Path
    config: Mapping[str, Any]
    task: Task
    tokenizer: Tokenizer[Any]
    model: GenerativeModel

    def generate(self, **options: Any) -> Any:
        """`generate` with this checkpoint; the options are those of the command line."""
        from pipelines import configurations, words_of
        from pipelines.generate import generate

        words = words_of({"domain": self.task.domain, "task": self.task.name, **options})
        return generate(configurations("generate", words)[0], self)


def load(checkpoint: str | Path) -> Loaded:
    """Open a checkpoint folder; `UserError` names what is wrong with it."""
    folder = Path(checkpoint)
    if not folder.is_dir():
        raise UserError(f"checkpoint {folder}: no such folder")
    config = read_config(folder)
    task = Task.load(config.get("domain", "bio"), config["task"]["name"])
    tokenizer = task.make_tokenizer(read_tokenizer(folder))
    model = build_model(config, tokenizer.vocabulary)
    load_weights(folder, model)
    return Loaded(folder, config, task, tokenizer, model.eval())

"""The verbs of `motif` as Python functions.

Each takes the keys of the command line as keyword arguments (`data.path` is written
`data__path`) and raises `core.errors.UserError` where the command would exit with code 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.compose import configurations, words_of
from pipelines.load import Loaded, load

__all__ = ["Loaded", "configurations", "evaluate", "generate", "load", "prepare", "train", "words_of"]


def _one(verb: str, options: dict[str, Any]) -> dict[str, Any]:
    return configurations(verb, words_of(options))[0]


def prepare(**options: Any) -> Path:
    """Raw files to shards; the folder."""
    from pipelines.prepare import prepare as run

    return run(_one("prepare", options))


def train(**options: Any) -> Path:
    """Shards to a checkpoint; the folder."""
    from pipelines.train import train as run

    return run(_one("train", options))


def generate(**options: Any) -> Any:
    """A checkpoint to sequences; a `Generation` of sequences, scores and metrics."""
    from pipelines.generate import generate as run

    return run(_one("generate", options))


def evaluate(**options: Any) -> dict[str, Any]:
    """Likelihood of a checkpoint, or metrics of a file; the content of metrics.json."""
    from pipelines.evaluate import evaluate as run

    return run(_one("evaluate", options))

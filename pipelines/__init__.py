"""The verbs of `motif` as Python functions: `import pipelines as motif`.

Each takes the keys of the command line as keyword arguments (`data.path` is written
`data__path`) and raises `core.errors.UserError` where the command would exit with code 2.
Nothing heavy is imported before a verb is called.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipelines.generate import Generation
    from pipelines.load import Loaded

__all__ = ["check", "cite", "data", "evaluate", "finetune", "generate", "list", "load", "prepare", "rerun", "train"]


class _Verbs(ModuleType):
    """Keeps `pipelines.train` the function, which importing the module `pipelines.train` would replace."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Verbs


def _one(verb: str, options: dict[str, Any]) -> dict[str, Any]:
    from pipelines.compose import configurations, words_of

    return configurations(verb, words_of(options))[0]


def prepare(**options: Any) -> Path:
    """Raw files to shards; the folder."""
    from pipelines.prepare import prepare as run

    return run(_one("prepare", options))


def train(**options: Any) -> Path:
    """Shards to a checkpoint; the folder."""
    from pipelines.train import train as run

    return run(_one("train", options))


def finetune(**options: Any) -> Path:
    """A checkpoint and sequences of your own to a checkpoint of them; the folder."""
    from pipelines.finetune import finetune as run

    return run(_one("finetune", options))


def generate(**options: Any) -> Generation:
    """A checkpoint to sequences, scores and metrics."""
    from pipelines.generate import generate as run

    return run(_one("generate", options))


def evaluate(**options: Any) -> dict[str, Any]:
    """Likelihood of a checkpoint, or metrics of a file; the content of metrics.json."""
    from pipelines.evaluate import evaluate as run

    return run(_one("evaluate", options))


def load(checkpoint: str | Path, process: str | None = None, mixer: str | None = None) -> Loaded:
    """A checkpoint, open: its `generate` answers many times."""
    from pipelines.load import load as run

    return run(checkpoint, process, mixer)


def list() -> dict[str, Any]:
    """Tasks and the members of every registry, with their papers."""
    from pipelines.catalogue import listing

    return listing()


def cite(run: str | Path) -> str:
    """The papers behind a run, as BibTeX."""
    from pipelines.catalogue import bibliography

    return bibliography(Path(run))


def data(name: str | None = None) -> Any:
    """The named data sets; with `name`, the path of that one, checked by its hash."""
    from domains.data_sets import data_sets
    from pipelines.data_sets import data_get

    return data_sets() if name is None else data_get(name)


def check(member: str) -> tuple[str, ...]:
    """The laws that hold for a member of your own, one line each; `UserError` names one that does not."""
    from pipelines.check import check as run

    return tuple(run(member))


def rerun(run: str | Path, out: str | Path | None = None) -> Any:
    """Repeat a run into `out`; what its verb returns."""
    from pipelines.catalogue import repetition

    verb, config = repetition(Path(run), None if out is None else str(out))
    return getattr(importlib.import_module(f"pipelines.{verb}"), verb)(config)

"""`motif check`: the laws of an abstraction on a member of the user's own.

One file an abstraction; its `laws` yields a line for each law that holds, and raises `UserError` at the first that
does not.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from core.backbones.memories.base import Fusion
from core.backbones.mixers.base import SequenceMixer
from core.decoding.base import Sampler
from core.errors import UserError
from core.guidance.constraints.base import Constraint
from core.guidance.guides.base import Guide
from core.guidance.items import parse_item
from core.guidance.objectives.base import Objective
from core.processes.base import Process
from core.registry import checked, is_file_reference, load_reference
from core.tokenizers.base import Tokenizer
from pipelines.catalogue import registries
from pipelines.check import constraints, fusions, guides, mixers, objectives, processes, samplers, tokenizers

_LAWS: dict[type, Callable[..., Iterator[str]]] = {
    Objective: objectives.laws,
    Constraint: constraints.laws,
    SequenceMixer: mixers.laws,
    Fusion: fusions.laws,
    Process: processes.laws,
    Sampler: samplers.laws,
    Guide: guides.laws,
    Tokenizer: tokenizers.laws,
}


def check(name: str) -> Iterator[str]:
    """One line a law; raises `UserError` at the first that fails.

    `name` is `path/to/file.py:Class` or a registered key, with arguments as in a list of items.
    """
    item = parse_item(name)
    member = _resolve(item.name)
    base = next((base for base in _LAWS if inspect.isclass(member) and issubclass(member, base)), None)
    if base is None:
        raise UserError(f"{name}: derives from none of {', '.join(base.__name__ for base in _LAWS)}")
    checked(member, base, name)
    yield f"{name}: a {base.__name__}"
    try:
        yield from _LAWS[base](member, *item.arguments)
    except UserError:
        raise
    except Exception as error:
        if member.__module__.partition(".")[0] in ("core", "domains"):
            # Nothing of the user's ran: a bug of ours, and no line of advice would mend it.
            raise
        raise UserError(f"{name}: {type(error).__name__}: {error}") from error
    yield "all laws hold"


def _resolve(name: str) -> Any:
    if is_file_reference(name):
        return load_reference(name)
    for registry in registries().values():
        if name in registry.keys():
            return registry.get(name)
    raise UserError(f"{name}: neither path/to/file.py:Class nor a registered member")

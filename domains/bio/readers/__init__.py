"""Files of sequences, one format a file; `read` picks the reader."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.registry import Registry, did_you_mean
from core.tokenizers.base import Tokenizer
from domains.base import Reader, ReadReport, named
from domains.bio.alphabet import alphabet_of
from domains.bio.readers._rules import Rules
from domains.bio.readers._text import head, read_text

registry: Registry[Reader] = Registry("reader", Reader, __name__)
_RULES = tuple(field.name for field in fields(Rules) if field.name != "expected")


def read(
    path: str | Path, reader: str | None = None, tokenizer: Tokenizer[Any] | None = None, **options: Any
) -> ReadReport:
    """The records of a file; its format is seen from its content, else from its name.

    `reader` names the format outright, `tokenizer` says which letters are expected, those of proteins
    without it. `options` are those of `Rules` and of the format's class; an unknown one is refused.
    """
    member = registry.get(reader) if reader is not None else _choose(path)
    rules = {name: options.pop(name) for name in _RULES if name in options}
    own = tuple(inspect.signature(member).parameters)
    for name in options:
        if name not in own or name == "rules":
            known = tuple(name for name in own if name != "rules") + _RULES
            raise UserError(f"{registry.key_of(member)} reader: unknown option {name!r}{did_you_mean(name, known)}")
    if "rules" in own:
        options["rules"] = Rules(**rules, expected=alphabet_of(tokenizer))
    return member(**options).read(path)


def _choose(path: str | Path) -> type[Reader]:
    start, name = head(path), str(path).lower().removesuffix(".gz")
    members = registry.members().values()
    for member in members:
        if member.recognises(start):
            return member
    for member in members:
        if name.endswith(member.suffixes):
            return member
    read_text(path)  # what is wrong with the bytes says more than an unknown name does
    known = " or ".join(f"reader={key}" for key in registry.keys())
    raise UserError(f"{named(path)}: neither its content nor its name tells its format: pass {known}")

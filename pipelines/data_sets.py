"""`motif data get`, and the files that a named set stands for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError
from domains.data_sets import located, named_set


@dataclass(frozen=True)
class Part:
    """One file to read.

    reader: its format, None sees it. columns: target -> header, where headers differ from ours. label: the
    class of all its records, None where a column has it or there are none. origin: of a named set, where
    it comes from and its licence.
    """

    file: Path
    reader: str | None = None
    columns: Mapping[str, str] | None = None
    label: str | None = None
    origin: tuple[str, str] | None = None


def data_get(name: str) -> Path:
    """Where a named set lies, checked by its hash; `UserError` tells how to obtain one that is missing."""
    entry = named_set(name)
    if "classes" in entry:
        raise UserError(f"data set {name} is made of {' and '.join(entry['classes'].values())}: get each of these")
    return located(entry)


def parts_of(data: Mapping[str, Any]) -> list[Part]:
    """The files of a named set, each checked by its hash; a set of `classes` has one a class."""
    if "classes" not in data:
        origin = (data["upstream"], data["licence"])
        return [Part(located(data), data["reader"], data.get("columns"), origin=origin)]
    entries = {label: named_set(name) for label, name in data["classes"].items()}
    return [
        Part(located(entry), entry["reader"], entry.get("columns"), label, (entry["upstream"], entry["licence"]))
        for label, entry in entries.items()
    ]

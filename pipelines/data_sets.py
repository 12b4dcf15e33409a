"""`motif data`: the named sets, where they lie and what they must hash to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError
from core.registry import did_you_mean
from pipelines.compose import config_folder
from pipelines.run import file_hash


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


def data_folder() -> Path:
    """`$MOTIF_DATA`, else `~/.cache/motif`."""
    return Path(os.environ.get("MOTIF_DATA") or Path.home() / ".cache" / "motif")


def data_sets() -> list[dict[str, Any]]:
    """The named sets, and whether each is present."""
    files = sorted((config_folder() / "data").glob("*.yaml"))
    bodies = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}

    def present(body: Mapping[str, Any]) -> bool:
        held = [bodies[name] for name in body.get("classes", {}).values()] or [body]
        return all((data_folder() / one["path"]).is_file() for one in held)

    return [{**body, "present": present(body)} for body in bodies.values()]


def named_set(name: str) -> dict[str, Any]:
    """The entry of a named set; `UserError` names the nearest."""
    file = config_folder() / "data" / f"{name}.yaml"
    if not file.is_file():
        raise UserError(f"unknown data set {name!r}{did_you_mean(name, tuple(e['name'] for e in data_sets()))}")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


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


def located(data: Mapping[str, Any]) -> Path:
    """The file of a named set, checked by its hash."""
    file = data_folder() / data["path"]
    if not file.is_file():
        raise UserError(
            f"data set {data['name']}: {file} is missing; set MOTIF_DATA to the folder that holds {data['path']}, or "
            f"make the file from {data['upstream']} ({data['licence']}), sha256 {data['sha256']}"
        )
    if file_hash(file) != data["sha256"]:
        raise UserError(f"data set {data['name']}: {file} does not match its sha256, fetch it again")
    return file

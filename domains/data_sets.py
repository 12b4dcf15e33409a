"""Named sets: `configs/data/<name>.yaml`, where they lie and what they must hash to."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError
from core.registry import did_you_mean


def data_folder() -> Path:
    """`$MOTIF_DATA`, else `~/.cache/motif`."""
    return Path(os.environ.get("MOTIF_DATA") or Path.home() / ".cache" / "motif")


def data_sets() -> list[dict[str, Any]]:
    """The named sets, and whether each is present."""
    bodies = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(_entries().glob("*.yaml"))}

    def present(body: Mapping[str, Any]) -> bool:
        held = [bodies[name] for name in body.get("classes", {}).values()] or [body]
        return all((data_folder() / one["path"]).is_file() for one in held)

    return [{**body, "present": present(body)} for body in bodies.values()]


def named_set(name: str) -> dict[str, Any]:
    """The entry of a named set; `UserError` names the nearest."""
    file = _entries() / f"{name}.yaml"
    if not file.is_file():
        raise UserError(f"unknown data set {name!r}{did_you_mean(name, tuple(e['name'] for e in data_sets()))}")
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def located(data: Mapping[str, Any]) -> Path:
    """The file of a named set, checked by its hash."""
    file = data_folder() / data["path"]
    if not file.is_file():
        raise UserError(
            f"data set {data['name']}: {file} is missing; set MOTIF_DATA to the folder that holds {data['path']}, or "
            f"make the file from {data['upstream']} ({data['licence']}), sha256 {data['sha256']}"
        )
    with open(file, "rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != data["sha256"]:
            raise UserError(f"data set {data['name']}: {file} does not match its sha256, fetch it again")
    return file


def _entries() -> Path:
    return Path(str(importlib.resources.files("configs"))) / "data"

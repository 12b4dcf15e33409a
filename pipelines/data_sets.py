"""`motif data`: the named sets, where they lie and what they must hash to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError
from core.registry import did_you_mean
from pipelines.compose import config_folder
from pipelines.run import file_hash


def data_folder() -> Path:
    """`$MOTIF_DATA`, else `~/.cache/motif`."""
    return Path(os.environ.get("MOTIF_DATA") or Path.home() / ".cache" / "motif")


def data_sets() -> list[dict[str, Any]]:
    """The named sets, and whether each is present."""
    files = sorted((config_folder() / "data").glob("*.yaml"))
    bodies = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files]
    return [{**body, "present": (data_folder() / body["path"]).is_file()} for body in bodies]


def data_get(name: str) -> Path:
    """Where a named set lies, checked by its hash; `UserError` tells how to obtain one that is missing."""
    known = {entry["name"]: entry for entry in data_sets()}
    if name not in known:
        raise UserError(f"unknown data set {name!r}{did_you_mean(name, tuple(known))}")
    return located(known[name])


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

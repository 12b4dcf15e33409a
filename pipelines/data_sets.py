"""Named data sets: where they lie and what they must hash to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import UserError
from pipelines.run import file_hash


def data_folder() -> Path:
    """`$MOTIF_DATA`, else `~/.cache/motif`."""
    return Path(os.environ.get("MOTIF_DATA") or Path.home() / ".cache" / "motif")


def located(data: Mapping[str, Any]) -> Path:
    """The file of a named set, checked by its hash."""
    file = data_folder() / data["path"]
    if not file.is_file():
        raise UserError(
            f"data set {data['name']}: {file} is missing; set MOTIF_DATA to the folder that holds {data['path']}"
        )
    if file_hash(file) != data["sha256"]:
        raise UserError(f"data set {data['name']}: {file} does not match its sha256, fetch it again")
    return file

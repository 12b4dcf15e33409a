"""A user's file of sequences, read under the keys that `prepare` and `evaluate` share."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.errors import UserError
from domains.base import ReadReport, guarded
from domains.tasks import Task


def read_records(task: Task, file: Path, reader: str | None, config: Mapping[str, Any]) -> ReadReport:
    """The records of `file`; `reader` names its format, None has it seen from the file."""
    options = {key: config[key] for key in ("case", "caps", "alphabet", "on_bad", "max_length")}
    if config["encoding"]:
        options["encoding"] = config["encoding"]
    if config["columns"]:
        options["columns"] = columns_of(config["columns"])
    return task.package("readers").read(file, reader, **options)


def columns_of(text: str) -> dict[str, str]:
    """`target:header` pairs of a `columns=` value."""
    pairs = [part.partition(":") for part in text.strip("[]").split(",") if part.strip()]
    if not all(mark for _, mark, _ in pairs):
        raise UserError(f"columns={text}: write target:header pairs, as in sequence:pep_seq")
    return {target.strip(): header.strip() for target, _, header in pairs}


def write_skipped(path: Path, report: ReadReport) -> None:
    """The records that were not read, as a table of file, record, position and reason."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "record", "position", "reason"])
        for entry in report.skipped:
            place = "" if entry.position is None else str(entry.position)
            writer.writerow([guarded(cell) for cell in (entry.file, entry.record, place, entry.reason)])

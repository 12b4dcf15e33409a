"""A user's file of sequences, read under the keys that `prepare` and `evaluate` share."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from core.data.conditions import Column
from core.errors import UserError
from core.registry import is_file_reference
from core.tokenizers.base import Tokenizer
from domains.base import ReadReport, Record, Skipped, guarded, named, shown
from domains.tasks import Task
from pipelines.data_sets import Part

# Targets of `columns=` that condition a model.
_CONDITIONS = ("class", "scalar")
_LABEL = 200
# The target of the column that each sequence is made from.
_SOURCE = "source"


def read_parts(task: Task, parts: Sequence[Part], config: Mapping[str, Any]) -> ReadReport:
    """The records of several files as one set; a part's label becomes the field `class` of its records.

    A sequence that an earlier part holds already, from the same source, is skipped.
    """
    records: list[Record] = []
    skipped: list[Skipped] = []
    told: list[str] = []
    first: dict[Any, Record] = {}
    for part in parts:
        report = read_records(task, part.file, part.reader, config, part.columns)
        skipped += report.skipped
        told += report.statements if len(parts) == 1 else [f"{part.file.name}: {line}" for line in report.statements]
        for record in report.records:
            earlier = first.get((record.value, record.source))
            if earlier is not None:
                reason = f"duplicate: the same sequence as record {shown(earlier.name)} of {named(earlier.file)}"
                skipped.append(Skipped(record.file, record.name, None, reason))
            elif part.label is None:
                records.append(record)
            else:
                records.append(replace(record, fields={**record.fields, "class": part.label}))
        for record in report.records:
            first.setdefault((record.value, record.source), record)
    return ReadReport(tuple(records), tuple(skipped), tuple(told))


def read_records(
    task: Task,
    file: Path,
    reader: str | None,
    config: Mapping[str, Any],
    columns: Mapping[str, str] | None = None,
) -> ReadReport:
    """The records of `file`; `reader` names its format, None has it seen from the file.

    columns: what its headers hold, unless the configuration says so.
    """
    options = {key: config[key] for key in ("case", "caps", "alphabet", "on_bad", "max_length")}
    if config["encoding"]:
        options["encoding"] = config["encoding"]
    if config["columns"]:
        options["columns"] = columns_of(config["columns"])
    elif columns:
        options["columns"] = columns
    return task.package("readers").read(file, reader, task.make_tokenizer(), **options)


def columns_of(text: str) -> dict[str, str]:
    """`target:header` pairs of a `columns=` value; the column of a condition keeps its header as its name."""
    found = {header if target in _CONDITIONS else target: header for target, header in _pairs(text)}
    headers = [*found.values()]
    double = next((header for header in headers if headers.count(header) > 1), None)
    if double is not None:
        raise UserError(f"columns={text}: column {shown(double)} stands twice: a column holds one thing")
    return found


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = [part.partition(":") for part in text.strip("[]").split(",") if part.strip()]
    if not all(mark for _, mark, _ in pairs):
        raise UserError(f"columns={text}: write target:header pairs, as in sequence:pep_seq")
    return [(target.strip(), header.strip()) for target, _, header in pairs]


def sources_of(config: Mapping[str, Any], records: Sequence[Record], tokenizer: Tokenizer[Any]) -> list[list[int]]:
    """The ids of each record's source, none where it has none; empty where no record has one.

    `UserError` where `columns=` names a column of sources and none is there.
    """
    if any(record.source is not None for record in records):
        return [[] if record.source is None else tokenizer.encode(record.source) for record in records]
    header = next((header for target, header in _pairs(config["columns"] or "") if target == _SOURCE), None)
    if header is not None:
        raise UserError(f"columns=source:{header}: no record has a source there")
    return []


def conditions_of(
    task: Task, config: Mapping[str, Any], records: Sequence[Record]
) -> tuple[tuple[Column, ...], Float[np.ndarray, "N K"]]:
    """The condition columns that `columns=` names, else those of the task's that the records have, and raw values.

    An empty cell is a missing value. Raises `UserError` for a cell that is no number where one belongs.
    """
    chosen = _chosen_conditions(task, config, records)
    columns, values = [], np.full((len(records), len(chosen)), np.nan)
    for place, (target, header) in enumerate(chosen):
        cells = [record.fields.get(header, "").strip() for record in records]
        labels = tuple(sorted(set(cells) - {""})) if target == "class" else ()
        if target == "class" and not labels:
            raise UserError(f"columns=class:{header}: no record has a class there")
        for label in labels:
            if len(label) > _LABEL or is_file_reference(label) or "${" in label or not label.isprintable():
                raise UserError(f"column {shown(header)}: {shown(label)!r} cannot name a class: rename it")
        folded: dict[str, str] = {}
        for label in labels:
            other = folded.setdefault(label.casefold(), label)
            if other != label:
                both = f"{shown(other)!r} and {shown(label)!r}"
                raise UserError(f"column {shown(header)}: classes {both} differ in case alone: write them alike")
        columns.append(Column(header, labels))
        numbers = {label: float(number) for number, label in enumerate(labels)}
        for row, (record, cell) in enumerate(zip(records, cells, strict=True)):
            if cell:
                values[row, place] = numbers[cell] if labels else _number(record, header, cell)
    return tuple(columns), values


def _chosen_conditions(task: Task, config: Mapping[str, Any], records: Sequence[Record]) -> list[tuple[str, str]]:
    """Target and header of each condition column."""
    found = [pair for pair in _pairs(config["columns"] or "") if pair[0] in _CONDITIONS]
    if not found:
        usual = [("class", task.conditions.get("class")), *(("scalar", s) for s in task.conditions.get("scalars", ()))]
        present = {name for record in records for name in record.fields}
        found = [(target, header) for target, header in usual if header in present]
    if [target for target, _ in found].count("class") > 1 or len({header for _, header in found}) < len(found):
        raise UserError(f"columns={config['columns']}: one class column, and each scalar once")
    return found


def _number(record: Record, header: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise UserError(
            f"{named(record.file)}: record {shown(record.name)}: column {shown(header)} holds {shown(cell)!r}, which "
            "is no number: mend it, or leave the cell empty"
        )
    return value


def write_skipped(path: Path, report: ReadReport) -> None:
    """The records that were not read, as a table of file, record, position and reason."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "record", "position", "reason"])
        for entry in report.skipped:
            place = "" if entry.position is None else str(entry.position)
            writer.writerow([guarded(cell) for cell in (entry.file, entry.record, place, entry.reason)])

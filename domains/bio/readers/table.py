"""Comma-, semicolon- or tab-separated tables with a header row, plain or gzip."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from core.errors import UserError
from core.registry import Paper, did_you_mean
from domains.base import Reader, ReadReport, Record, Skipped, named, shown
from domains.bio.readers._rules import STRICT, Rules
from domains.bio.readers._text import read_text

_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab"}
_DEFAULTS = {"sequence": ("sequence", "seq", "peptide"), "name": ("name", "id", "identifier")}
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?")


class Table(Reader):
    """One record a row; every other column becomes a field.

    columns: target -> header, for `sequence`, `name`, `source` (the sequence that each is made from, an
    empty cell where there is none) and any field that the header names otherwise. Without it the
    sequence is looked for under sequence, seq or peptide and the name under name, id or identifier, in
    any case; rows without a name are named by their number.
    Spaces around cells are taken off and a column of numbers with decimal commas is rewritten with
    points; both are stated.
    """

    paper = Paper("ours", "RFC 4180 tables with the delimiters and decimal signs in use")
    suffixes = (".csv", ".tsv", ".tab", ".txt")

    def __init__(
        self, rules: Rules = STRICT, encoding: str = "utf-8", columns: Mapping[str, str] | None = None
    ) -> None:
        self.rules = rules
        self.encoding = encoding
        self.columns = dict(columns or {})

    @staticmethod
    def recognises(head: str) -> bool:
        first = head.split("\n", 1)[0]
        return any(_default(_cells(first, sign), "sequence") for sign in _DELIMITERS)

    def read(self, path: str | Path) -> ReadReport:
        text, statements = read_text(path, self.encoding)
        file = str(path)
        delimiter = self._delimiter(text.lstrip("\n").split("\n", 1)[0])
        statements.append(f"the delimiter is a {_DELIMITERS[delimiter]}")
        rows = _rows(file, text, delimiter)
        header = [cell.strip() for cell in rows[0][1]]
        names = self._names(file, header)
        records: list[Record] = []
        ragged: list[Skipped] = []
        trimmed = Counter[str]()
        for number, (line, cells) in enumerate(rows[1:], start=1):
            if len(cells) != len(header):
                reason = f"line {line} has {len(cells)} cells where the header has {len(header)}"
                ragged.append(Skipped(file, str(number), None, reason))
                continue
            fields = {name: cell.strip() for name, cell in zip(names, cells, strict=True)}
            trimmed.update(name for name, cell in zip(names, cells, strict=True) if cell != fields[name])
            value = fields.pop("sequence")
            name = fields.pop("name", "") or str(number)
            source = fields.pop("source") or None if "source" in self.columns else None
            records.append(Record(name, value, fields, file, line, source))
        statements += [
            f"{n} cells of column {shown(name)} had spaces around them, taken off" for name, n in trimmed.items()
        ]
        return self.rules.screen(file, _with_points(records, statements), ragged, statements)

    def _delimiter(self, first: str) -> str:
        wanted = self.columns.get("sequence")

        def merit(sign: str) -> tuple[bool, int]:
            cells = _cells(first, sign)
            found = wanted in cells if wanted else _default(cells, "sequence") is not None
            return found, len(cells)

        return max(_DELIMITERS, key=merit)

    def _names(self, file: str, header: Sequence[str]) -> list[str]:
        """What each column is called in the records."""
        for target, column in self.columns.items():
            if column not in header:
                near = did_you_mean(column, tuple(shown(cell) for cell in header))
                raise UserError(f"{named(file)}: columns={target}:{column}: no such column{near}")
        chosen = dict(self.columns)
        for target in _DEFAULTS:
            found = _default(header, target)
            if target not in chosen and found is not None and found not in chosen.values():
                chosen[target] = found
        if "sequence" not in chosen:
            seen = ", ".join(shown(cell, 20) for cell in header[:12])
            raise UserError(
                f"{named(file)}: no header row with a column sequence, seq or peptide; the first row reads: {seen}: "
                f"add a header row, or pass columns=sequence:NAME"
            )
        targets = {column: target for target, column in chosen.items()}
        names = [targets.get(column, column) for column in header]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise UserError(f"{named(file)}: two columns are called {shown(double)}: rename one")
        return names


def _cells(line: str, delimiter: str) -> list[str]:
    return [cell.strip().strip('"') for cell in line.split(delimiter)]


def _default(header: Sequence[str], target: str) -> str | None:
    """The column that a target is read from when nothing was said."""
    lowered = {cell.lower(): cell for cell in reversed(header)}
    return next((lowered[name] for name in _DEFAULTS[target] if name in lowered), None)


def _rows(file: str, text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Rows that hold anything, each with the line it starts on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows = []
    line = 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{named(file)}: line {line}: {error}: check the quotes from there on") from None
    if not rows:
        raise UserError(f"{named(file)}: the file is empty")
    return rows


def _with_points(records: list[Record], statements: list[str]) -> list[Record]:
    """Decimal commas as points, in columns that hold numbers only."""
    found = []
    for name in records[0].fields if records else ():
        values = [value for record in records if (value := record.fields[name].strip())]
        if any("," in value for value in values) and all(_NUMBER.fullmatch(value) for value in values):
            if any("." in value for value in values):
                statements.append(f"column {shown(name)} mixes decimal commas and points: left as text")
            else:
                statements.append(f"column {shown(name)} has decimal commas, read as points")
                found.append(name)
    if not found:
        return records
    return [
        replace(r, fields={**r.fields, **{name: r.fields[name].strip().replace(",", ".") for name in found}})
        for r in records
    ]

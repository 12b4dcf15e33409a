"""Landscapes that were measured whole: every value stands in a table."""

from __future__ import annotations

import csv
import gzip
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from domains.data_sets import located, named_set


def measured(data: str, column: str) -> Mapping[str, float]:
    """A column of a named set by its sequences; `UserError` where the set is missing or another one."""
    entry = named_set(data)
    return _read(located(entry), entry["columns"]["sequence"], column)


# Eight factors and a fitness take about 80 MB.
@lru_cache(maxsize=9)
def _read(file: Path, sequence: str, column: str) -> Mapping[str, float]:
    with gzip.open(file, "rt", encoding="utf-8", newline="") as stream:
        rows = csv.reader(stream)
        header = next(rows)
        key, value = header.index(sequence), header.index(column)
        return {row[key]: float(row[value]) for row in rows}

"""What readers could not read, as a table; headers as `columns=` names them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from core.errors import UserError
from domains.base import ReadReport, Skipped
from pipelines.reading import columns_of, write_skipped


def test_columns_are_pairs() -> None:
    assert columns_of("sequence:pep_seq, split:my fold") == {"sequence": "pep_seq", "split": "my fold"}
    assert columns_of("[sequence:a:b]") == {"sequence": "a:b"}
    with pytest.raises(UserError, match="write target:header pairs"):
        columns_of("sequence")


def test_no_cell_of_the_users_becomes_a_formula(tmp_path: Path) -> None:
    skipped = tuple(Skipped("in.csv", name, None, "empty") for name in ("=1+1", "+1", "-1", "-a", "@x", "plain"))
    write_skipped(tmp_path / "skipped.csv", ReadReport((), skipped))
    with open(tmp_path / "skipped.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == ["file", "record", "position", "reason"]
    assert [row[1] for row in rows[1:]] == ["'=1+1", "'+1", "-1", "'-a", "'@x", "plain"]

"""Where named sets lie."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from core.errors import UserError
from domains.data_sets import data_folder, located


def test_the_data_folder_is_the_variable_or_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOTIF_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.delenv("MOTIF_DATA")
    assert data_folder() == Path.home() / ".cache" / "motif"


def test_a_set_is_found_checked_or_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MOTIF_DATA", str(tmp_path))
    entry = {"name": "few", "path": "a/b.csv", "sha256": hashlib.sha256(b"x").hexdigest()}
    entry |= {"upstream": "owner/few", "licence": "MIT"}
    with pytest.raises(UserError, match=r"few: .*b.csv is missing; set MOTIF_DATA .* owner/few \(MIT\), sha256 2d71"):
        located(entry)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.csv").write_bytes(b"x")
    assert located(entry) == tmp_path / "a" / "b.csv"
    (tmp_path / "a" / "b.csv").write_bytes(b"y")
    with pytest.raises(UserError, match="does not match its sha256"):
        located(entry)

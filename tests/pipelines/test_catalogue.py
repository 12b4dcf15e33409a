"""What there is, and where it comes from."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

import pipelines as motif
from core.errors import UserError
from core.registry import Paper
from pipelines import catalogue
from pipelines.catalogue import registries
from tests.pipelines.conftest import Outcome


def test_list_names_every_member_of_every_registry(motif: Callable[..., Outcome]) -> None:
    done, text = motif("list", "--json"), motif("list")
    assert done.code == text.code == 0
    body = json.loads(done.out)
    assert body["task"]["bio/peptide"]["paper"]
    for name, registry in registries().items():
        assert set(body[name]) == set(registry.keys())
        assert all(entry["paper"] and entry["title"] for entry in body[name].values())
        assert all(re.search(rf"^  {key} ", text.out, re.MULTILINE) for key in registry.keys())
    assert {"process", "mixer", "sampler", "bio.objective", "bio.constraint", "bio.reader", "bio.metric"} <= set(body)


ENTRY = re.compile(r"@misc\{(?P<key>[A-Za-z0-9_]+),\n((  \w+ = \{.*\},\n)+)\}")


def test_cite_is_bibtex_of_the_members_used(tiny: Path, tmp_path: Path, motif: Callable[..., Outcome]) -> None:
    words = ["n=2", "objectives=[gravy:max,net_charge:near:4]", "constraints=[forbid:N-{P}-[ST],length:5..9]"]
    assert motif("generate", f"checkpoint={tiny / 'model'}", *words, f"out={tmp_path / 'g'}").code == 0
    for run, members in (
        (
            tmp_path / "g",
            {"mixture_flow", "attention", "stepwise", "gravy", "net_charge", "forbid", "length", "novelty"},
        ),
        (tiny / "model", {"mixture_flow", "attention", "polynomial", "amino_acid"}),
        (tiny / "prepared", {"amino_acid"}),
    ):
        done = motif("cite", run)
        assert done.code == 0
        entries = done.out.strip().split("\n\n")
        matches = [ENTRY.fullmatch(entry) for entry in entries]
        assert all(matches), done.out
        keys = [match["key"] for match in matches if match]
        assert len(keys) == len(set(keys))
        named = set(re.findall(r"\w+ ([a-z_]+)(?:,|;|\})", done.out.replace("\\_", "_")))
        assert members <= named
    assert "gravy" not in motif("cite", tiny / "prepared").out
    flow = next(entry for entry in motif("cite", tmp_path / "g").out.split("\n\n") if entry.startswith("@misc{S004"))
    assert "eprint = {2407.15595}" in flow and "archivePrefix = {arXiv}" in flow and "deviations" in flow


def test_one_paper_of_two_members_is_cited_once(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    papers = [Paper("ours", "One & only", "1234.5"), Paper("ours", "One & only", "1234.5", "half of it")]
    used = [("mixer", "a", papers[0]), ("process", "b", papers[1])]
    monkeypatch.setattr(catalogue, "used", lambda *run: iter(used))
    text = motif.cite(tiny / "model")
    assert text.count("@misc") == 1 and "@misc{arxiv_1234_5," in text
    assert "title = {{One \\& only}}" in text and "note = {mixer a; process b, with deviations: half of it}" in text


@pytest.fixture
def named_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder whose `peptides` hold two records, with the hash that their YAML states."""
    file = tmp_path / "data" / "bio" / "peptides" / "corpus.csv.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress(b"sequence,split\nACDEF,train\nKKLLK,valid\n", mtime=0))
    true = yaml.safe_load

    def load(text: str) -> object:
        body = true(text)
        if isinstance(body, dict) and body.get("name") == "peptides":
            body["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "0" * 64
        return body

    monkeypatch.setattr(yaml, "safe_load", load)
    monkeypatch.setenv("MOTIF_DATA", str(tmp_path / "data"))
    return file


def test_data_list_and_get(named_set: Path, motif: Callable[..., Outcome]) -> None:
    done = motif("data", "list")
    assert done.code == 0 and re.search(r"^peptides +present +bio ", done.out, re.MULTILINE)
    assert motif("data", "get", "peptides").out == f"peptides: {named_set}\n"
    named_set.unlink()
    assert re.search(r"^peptides +missing ", motif("data", "list").out, re.MULTILINE)
    done = motif("data", "get", "peptides")
    assert done.code == 2 and done.err.count("\n") == 1
    assert all(part in done.err for part in (str(named_set), "sha256", "reymond-group/MLpeptide", "MIT"))


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "bio" / "peptides" / "corpus.csv.gz"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"something else")
    monkeypatch.setenv("MOTIF_DATA", str(tmp_path))
    with pytest.raises(UserError, match="does not match its sha256"):
        motif.data("peptides")
    with pytest.raises(UserError, match="does not match its sha256"):
        motif.prepare(out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_data_of_the_real_set(motif_data: Path) -> None:
    assert motif.data("peptides") == motif_data / "bio" / "peptides" / "corpus.csv.gz"
    (entry,) = [entry for entry in motif.data() if entry["name"] == "peptides"]
    assert entry["present"] and entry["licence"]

"""Whoever a run used is cited, in its report as by `motif cite`."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.citations import used
from pipelines.run import read_run
from tests.pipelines.conftest import Outcome

CONFIG: dict[str, Any] = {
    "domain": "bio",
    "task": {"name": "peptide", "metrics": ["validity"]},
    "n": 2,
    "sampler": {"name": "beam", "width": 2},
    "guide": {"name": "classifier_free", "weight": 1.0},
    "objectives": ["gravy:max", "net_charge:near:4", "gravy:min"],
    "constraints": ["length:5..9"],
}
MODEL: dict[str, Any] = {
    "process": {"name": "mixture_flow", "schedule": {"name": "cosine"}},
    "model": {
        "pattern": [{"name": "bidirectional", "mixer": {"name": "min_gru"}}, {"name": "attention"}],
        "encoders": {"source": {"depth": 1, "pattern": [{"name": "relation_attention"}]}, "other": None},
        "fusion": {"name": "hierarchical", "pointer": "source"},
    },
    "adapt": {"name": "lora", "rank": 8},
}
OF_MODEL = {
    ("tokenizer", "amino_acid"),
    ("process", "mixture_flow"),
    ("schedule", "cosine"),
    *(("mixer", name) for name in ("bidirectional", "min_gru", "attention", "relation_attention")),
    ("fusion", "hierarchical"),
    ("head", "pointer_head"),
    ("adapt", "lora"),
}
ASKED = {("objective", "gravy"), ("objective", "net_charge"), ("constraint", "length")}
DRAWN = {("sampler", "beam"), ("guide", "classifier_free")}


def cited(verb: str, config: dict[str, Any], model: dict[str, Any] | None) -> set[tuple[str, str]]:
    found = [(role, name) for role, name, paper in used(verb, config, model) if paper.title]
    assert len(found) == len(set(found))
    return set(found)


def test_every_part_of_a_run_is_cited() -> None:
    assert cited("generate", CONFIG, MODEL) == OF_MODEL | ASKED | DRAWN | {("metric", "validity")}
    assert cited("train", {**CONFIG, "objectives": [], "constraints": []}, MODEL) == OF_MODEL


@pytest.mark.parametrize(
    ("gone", "parts"),
    [
        ({"fusion": None}, {("fusion", "hierarchical"), ("head", "pointer_head")}),
        ({"fusion": {"name": "hierarchical", "pointer": None}}, {("head", "pointer_head")}),
        ({"encoders": None}, {("mixer", "relation_attention")}),
    ],
)
def test_what_a_model_lacks_is_not_cited(gone: dict[str, Any], parts: set[tuple[str, str]]) -> None:
    assert cited("train", CONFIG, {**MODEL, "model": {**MODEL["model"], **gone}}) == (OF_MODEL | ASKED) - parts


def test_what_a_run_does_without_is_not_cited() -> None:
    everything = OF_MODEL | ASKED | DRAWN | {("metric", "validity")}
    assert cited("generate", {**CONFIG, "guide": None}, MODEL) == everything - {("guide", "classifier_free")}
    for adapt in ({"name": "full"}, None):
        assert cited("generate", CONFIG, {**MODEL, "adapt": adapt}) == everything - {("adapt", "lora")}
    # The process's own sampler, where none is named.
    assert cited("generate", {**CONFIG, "sampler": None}, MODEL) == (everything - {("sampler", "beam")}) | {
        ("sampler", "stepwise")
    }
    assert cited("evaluate", {**CONFIG, "n": 0}, MODEL) == everything - DRAWN
    assert cited("evaluate", CONFIG, None) == {("tokenizer", "amino_acid"), ("metric", "validity")} | ASKED


def test_the_report_and_the_command_cite_the_same(tiny: Path, tmp_path: Path, motif: Callable[..., Outcome]) -> None:
    out = tmp_path / "g"
    words = ["n=2", "objectives=[gravy]", "constraints=[length:5..9]", "sampler=first_hitting", f"out={out}"]
    assert motif("generate", f"checkpoint={tiny / 'model'}", *words).code == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    section = page[page.rindex("How to cite") : page.index("As BibTeX")]
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in section.split("<tr>")]
    shown = {(html.unescape(row[0]), html.unescape(row[1])) for row in rows if len(row) > 1}
    text = motif("cite", out).out.replace("\\_", "_")
    assert shown == cited("generate", read_run(out), read_run(tiny / "model"))
    assert {("sampler", "first_hitting"), ("schedule", "polynomial"), ("mixer", "attention")} <= shown
    assert all(re.search(rf"[{{ ]{role} {name}[,;}}]", text) for role, name in shown)

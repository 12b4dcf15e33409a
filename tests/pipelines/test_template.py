"""Gaps of unknown length between fixed parts, through the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import pipelines
from core.guidance.constraint_set import ConstraintSet
from core.processes.insertion import Insertion
from pipelines.cli import main
from pipelines.template import start_from
from tests.laws.test_constraints import Letters
from tests.pipelines.conftest import TRAINED_LENGTH


@pytest.fixture(scope="module")
def inserting(tiny: Path) -> Path:
    """A checkpoint of an insertion process, trained for a few steps."""
    out = tiny / "inserting"
    steps = ["trainer.steps=4", "trainer.validate_every=2", "trainer.warmup_steps=1"]
    words = [f"data.path={tiny / 'prepared'}", "process=insertion", "model=tiny", f"process.limit={TRAINED_LENGTH}"]
    assert main(["train", *words, *steps, f"out={out}"]) == 0
    return out


def drawn(checkpoint: Path, out: Path, **options: object) -> list[str]:
    return [*pipelines.generate(checkpoint=checkpoint, out=out, n=12, **options).sequences]


@pytest.mark.parametrize(
    ("template", "tokens", "closed"),
    [("AC*A", [0, 1, 0], [1, 1, 0, 1]), ("*", [], [0]), ("*C**A", [1, 0], [0, 0, 1]), ("A*", [0], [1, 0])],
)
def test_only_stars_open_gaps(template: str, tokens: list[int], closed: list[int]) -> None:
    letters = Letters("AC")
    process = Insertion(letters.vocabulary, limit=5)
    start = start_from(template, process, letters, ConstraintSet([], letters, range(1, 6)))
    assert start.tokens.tolist() == [tokens] and start.layout.lengths.tolist() == [len(tokens)]
    assert start.closed is not None and start.closed.long().tolist() == [closed]
    assert start.fixed is not None and bool(start.fixed.all())


@pytest.mark.parametrize("template", ["GIGK*SAK", "*KK*", "A*C*D", "W*"])
def test_fixed_parts_stay_where_they_are(template: str, inserting: Path, tmp_path: Path) -> None:
    found = drawn(inserting, tmp_path / "run", template=template)
    shape = re.compile(template.replace("*", ".*"))
    assert len(found) == 12 and all(shape.fullmatch(sequence) for sequence in found)
    assert max(map(len, found)) <= TRAINED_LENGTH and len(set(found)) > 1


def test_rules_hold_too_and_batches_do_not_matter(inserting: Path, tmp_path: Path) -> None:
    options = {"template": "GIG*AK", "constraints": ["length:9..12", "forbid:K-x-K", "contains:W"]}
    whole = drawn(inserting, tmp_path / "whole", **options)
    assert all(s.startswith("GIG") and s.endswith("AK") and "W" in s and 9 <= len(s) <= 12 for s in whole)
    metrics = json.loads((tmp_path / "whole" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["constraints"] == {"checked": 12, "violated": 0}
    assert drawn(inserting, tmp_path / "parts", batch_size=5, **options) == whole


def test_samples_at_the_limit_are_counted(inserting: Path, motif: Callable, tmp_path: Path) -> None:
    words = ["template=W*", "n=3", f"constraints=[length:{TRAINED_LENGTH}]", f"out={tmp_path / 'run'}"]
    outcome = motif("generate", f"checkpoint={inserting}", *words)
    assert outcome.code == 0 and "3 samples are as long as the model can write, and may be cut there" in outcome.out
    drawn(inserting, tmp_path / "short", template="W*", constraints=["length:5..6"])
    metrics = json.loads((tmp_path / "short" / "metrics.json").read_text(encoding="utf-8"))
    assert "at_limit" not in metrics["values"]


REFUSED = {
    "no_gap": ("GIGK", (), "no gap to fill; write * where tokens may stand, as in GIGK*SAK"),
    "too_long": ("A" * 15 + "*" + "C" * 15, (), "30 fixed tokens, above the model's 20; shorten it"),
    "against_a_rule": (
        "GNG*A",
        ("constraints=[forbid:NG,length:..12]",),
        "nothing that it leaves open obeys forbid:NG and length:..12; loosen one",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_templates_that_nothing_fits_are_refused(case: str, refused: Callable[..., None], inserting: Path) -> None:
    template, words, message = REFUSED[case]
    refused(f"template={template}: {message}", "generate", f"checkpoint={inserting}", f"template={template}", *words)


def test_letters_that_cannot_be_read_are_refused(motif: Callable, inserting: Path, tmp_path: Path) -> None:
    outcome = motif("generate", f"checkpoint={inserting}", "template=GI1*K", f"out={tmp_path / 'out'}")
    assert outcome.code == 2 and outcome.err.startswith("motif: template=GI1*K: ") and outcome.err.count("\n") == 1


def test_processes_that_fill_no_gaps_are_refused(refused: Callable[..., None], tiny: Path) -> None:
    refused(
        "template=GIGK*SAK: the checkpoint's process mixture_flow fills no gaps of unknown length; "
        "train with process=insertion, or name places by the constraint fixed",
        "generate",
        f"checkpoint={tiny / 'model'}",
        "template=GIGK*SAK",
    )

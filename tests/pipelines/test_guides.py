"""Every guide that scores, from the command line: what it moves, what it costs, what it holds, and how it resumes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import pipelines as motif
from core.decoding.stepwise import Stepwise
from core.errors import UserError
from core.guidance.guides import registry as guides
from core.guidance.objectives.base import Scoreboard

SCORING = [key for key, member in guides.members().items() if member.scoring]
# As a user writes it: any class outside the repository.
OWN = """
import numpy as np

from core.guidance.objectives.base import Objective
from core.registry import Paper


class Lysines(Objective):
    paper, unit, source, direction = Paper("ours", "Share of K"), "1", "counting", "max"
    letters = "ACDEFGHIKLMNPQRSTVWY"

    def score(self, sequences):
        return np.array([sequence.count("K") / len(sequence) for sequence in sequences])

    def gradient(self, sequences):
        found = np.zeros((len(sequences), max(map(len, sequences)), 20))
        for row, sequence in enumerate(sequences):
            found[row, : len(sequence), 8] = 1 / len(sequence)
        return found
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("own") / "mine.py"
    file.write_text(OWN)
    return f"{file}:Lysines"


def drawn(tiny: Path, out: Path, objectives: list[str], **options: Any) -> Any:
    words = {"n": 6, "batch_size": 4, "sampler": "stepwise", "sampler__steps": 4, "objectives": objectives, **options}
    return motif.generate(checkpoint=tiny / "model", out=out, **words)


@pytest.mark.parametrize("guide", SCORING)
def test_each_guide_steers_a_run(guide: str, tiny: Path, own: str, tmp_path: Path, motif: Callable[..., Any]) -> None:
    lysines = f"{own}:max"
    asked = f"objectives=[{lysines},net_charge:min]" if guide != "taylor" else f"objectives=[{lysines}]"
    words = [f"checkpoint={tiny / 'model'}", "n=6", "batch_size=4", "sampler=stepwise", "sampler.steps=4", asked]
    out = tmp_path / "run"
    done = motif("generate", *words, f"guide={guide}", "guide.strength=3", "constraints=[length:6..9]", f"out={out}")
    assert (done.code, done.err.splitlines()[-1:]) == (0, done.err.splitlines()[-1:]), done.err
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["constraints"]["violated"] == 0 and metrics["objective_calls"] > 6
    plain = motif("generate", *words, "constraints=[length:6..9]", f"out={tmp_path / 'plain'}")
    assert plain.code == 0
    assert json.loads((tmp_path / "plain" / "metrics.json").read_text())["samples"] != metrics["samples"]


def test_a_guide_finds_what_is_sought(tiny: Path, own: str, tmp_path: Path) -> None:
    """By far more than the mean of unguided sequences moves by chance."""
    scores = {}
    for guide in (None, "predictor", "taylor", "mog"):
        settings = {"guide": guide, "guide__strength": 30.0 if guide != "mog" else 1.0} if guide else {}
        scores[guide] = drawn(tiny, tmp_path / f"{guide}", [f"{own}:max"], n=24, **settings).scores.mean()
    assert scores[None] < 0.2 and min(scores["predictor"], scores["taylor"], scores["mog"]) > 0.5


@pytest.mark.parametrize("guide", ["mog", "tchebycheff"])
def test_batches_and_stops_change_nothing(
    guide: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the sequences nor what was asked of the objectives, which are asked nothing twice."""
    asked, settings = ["gravy:max", "net_charge:near:2"], {"guide": guide}
    settings |= {"guide__pilot": 8} if guide == "tchebycheff" else {}
    run = drawn(tiny, tmp_path / "whole", asked, **settings)
    fewer = drawn(tiny, tmp_path / "fewer", asked, n=3, batch_size=2, **settings)
    assert fewer.sequences == run.sequences[:3]
    whole = run.metrics
    true, calls = Stepwise.sample, []

    def stop(self: Stepwise, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == (3 if guide == "tchebycheff" else 2):
            raise KeyboardInterrupt
        return true(self, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Stepwise, "sample", stop)
        with pytest.raises(KeyboardInterrupt):
            drawn(tiny, tmp_path / "cut", asked, **settings)
    cut = drawn(tiny, tmp_path / "cut", asked, **settings).metrics
    for key in ("samples", "objective_calls", "objective_evaluations", "network_calls", "values"):
        assert cut[key] == whole[key], key


def test_what_a_guide_needs_is_asked_for(tiny: Path, own: str, tmp_path: Path) -> None:
    for guide, objectives, message in (
        ("mog", [], "Mog needs objectives to guide by: add objectives="),
        ("taylor", ["gravy:max"], "objective gravy:max has no gradient: use guide=predictor, or drop it"),
    ):
        with pytest.raises(UserError, match=message):
            drawn(tiny, tmp_path / "run", objectives, guide=guide)
    with pytest.raises(UserError, match="guide mog: angle 90.0: outside 15..75"):
        drawn(tiny, tmp_path / "run", ["gravy:max"], guide="mog", guide__angle=90.0)
    assert not list(tmp_path.iterdir())


def test_objectives_that_are_recalled_are_not_asked_again() -> None:
    from tests.laws.toy_objectives import Share, board

    first, again = board(Share("A")), board(Share("A"))
    first.score(["AB", "BB"])
    pairs = first.scored()
    again.recall([value for value, _ in pairs], first.score(["AB", "BB"]))
    again.recall(["AB"], first.score(["AB"]))
    assert again.calls == first.calls == 2 and again.evaluations == first.evaluations == {"o0": 2}
    assert again.score(["AB", "BB"]).tolist() == [[0.5], [0.0]] and again.evaluations == {"o0": 2}
    assert first.scored(1) == [("BB", [0.0])] and isinstance(again, Scoreboard)

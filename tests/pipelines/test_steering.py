"""Samplers that seek objectives, from the command line: what they give, what it costs, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipelines as motif
from core.decoding.feynman_kac import FeynmanKac
from core.errors import UserError
from core.guidance.pareto import fronts
from tests.pipelines.schema import check_metrics

PARTICLES = {"sampler": "feynman_kac", "sampler.steps": 6, "sampler.every": 2, "sampler.particles": 4}
TREE = {
    **{"sampler": "pareto_tree", "sampler.steps": 4, "sampler.stride": 2},
    **{"sampler.children": 4, "sampler.budget": 12, "sampler.trees": 2},
}  # fmt: skip


def generated(tiny: Path, out: Path, **more: Any) -> Any:
    words = {"n": 4, "objectives": ["net_charge:max"], "constraints": ["length:5..7", "forbid:K-x-K"]}
    return motif.generate(checkpoint=tiny / "model", out=out, **{**words, **more})


def test_particles_are_steered(tiny: Path, tmp_path: Path) -> None:
    plain, steered = (
        generated(tiny, tmp_path / f"{strength}", **PARTICLES, **{"sampler.strength": strength})
        for strength in (0.0, 3.0)
    )
    assert np.mean(steered.scores) > np.mean(plain.scores) + 0.5
    for run, least in ((plain, -1e-9), (steered, 0.5)):
        values = run.metrics["values"]
        check_metrics(json.loads((run.out / "metrics.json").read_text(encoding="utf-8")))
        assert values["unsteered"] == 0 and math.isfinite(values["log_normaliser"]) and values["log_normaliser"] > least
        assert run.metrics["constraints"] == {"checked": 4, "violated": 0}
        assert 4 <= run.metrics["objective_calls"] == run.metrics["objective_evaluations"]["net_charge:max"]
    assert abs(plain.metrics["values"]["log_normaliser"]) < 1e-9
    assert "log normaliser" in (steered.out / "samples.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "Inference-time Scaling and Steering" in motif.cite(steered.out)


def test_batches_and_stops_change_nothing(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generated(tiny, tmp_path / "whole", **PARTICLES)
    true, calls = FeynmanKac.sample, []

    def stop_at_second(self: FeynmanKac, *arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return true(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(FeynmanKac, "sample", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            generated(tiny, tmp_path / "parts", **PARTICLES, batch_size=3)
    parts = generated(tiny, tmp_path / "parts", **PARTICLES, batch_size=3)
    assert parts.metrics["samples"] == whole.metrics["samples"]
    for key in ("log_normaliser", "unsteered"):
        assert parts.metrics["values"][key] == pytest.approx(whole.metrics["values"][key])
    assert parts.metrics["objective_calls"] == whole.metrics["objective_calls"]


def test_trees_give_the_best_that_they_find(tiny: Path, tmp_path: Path) -> None:
    asked = {"objectives": ["net_charge:max", "gravy:max"], **TREE}
    run = generated(tiny, tmp_path / "run", **asked)
    assert run.metrics["constraints"] == {"checked": 4, "violated": 0}
    assert len(set(run.sequences)) == 4 and run.metrics["objective_calls"] <= 24
    more = generated(tiny, tmp_path / "more", n=8, **asked)
    # The best four are no worse than the best eight: all of them, or four of their first front.
    best = {more.sequences[i] for i in next(fronts(more.scores))}
    assert set(run.sequences) <= best or best <= set(run.sequences)
    again = generated(tiny, tmp_path / "again", batch_size=1, **asked)
    assert again.sequences == run.sequences
    with pytest.raises(UserError, match=r"sampler=pareto_tree finds \d+ sequences, 90 are asked for: raise sampler.bu"):
        generated(tiny, tmp_path / "many", n=90, **asked)
    assert not list(tmp_path.glob("many*"))


@pytest.mark.parametrize("sampler", ["feynman_kac", "pareto_tree"])
def test_steering_without_objectives_is_refused(sampler: str, refused: Callable[..., None], tiny: Path) -> None:
    message = f"sampler={sampler} seeks objectives: add objectives=, as in objectives=[net_charge:max]"
    refused(message, "generate", f"checkpoint={tiny / 'model'}", f"sampler={sampler}")


def test_settings_that_make_no_sense_are_refused(refused: Callable[..., None], tiny: Path) -> None:
    words = ("generate", f"checkpoint={tiny / 'model'}", "objectives=[gravy]")
    many = "sampler feynman_kac: 40000 particles with 2 draws each: at most 16384 together"
    refused(many, *words, "sampler=feynman_kac", "sampler.particles=40000")
    refused("sampler pareto_tree: budget 0: at least 1", *words, "sampler=pareto_tree", "sampler.budget=0")

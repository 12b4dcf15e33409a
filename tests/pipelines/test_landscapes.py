"""Landscapes that are known whole through the real commands."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import pipelines as motif
from core.errors import UserError
from core.evaluation.ehrlich_function import EhrlichFunction
from domains.bio.tokenizers.states import States

STEPS = {"trainer__steps": 2, "trainer__validate_every": 1, "trainer__warmup_steps": 1, "model": "tiny"}


def trained(task: dict[str, str], sequences: list[str], folder: Path) -> Path:
    """A model of the task, for a few steps."""
    folder.mkdir()
    (folder / "in.csv").write_text("sequence\n" + "\n".join(sequences) + "\n", encoding="utf-8")
    prepared = motif.prepare(**task, input=folder / "in.csv", out=folder / "p")
    return motif.train(**task, data__path=prepared, out=folder / "m", **STEPS)


def test_states_from_the_chain_to_a_report(tmp_path: Path) -> None:
    task = {"domain": "bio", "task": "ehrlich", "task__tokenizer__permutation": "5"}
    rows = EhrlichFunction(32, 32, 4, 4, 4).draw(60, 9)
    model = trained(task, list(map(States().decode, rows.tolist())), tmp_path / "t")
    result = motif.generate(
        **task, checkpoint=model, n=8, objectives=["ehrlich", "ehrlich:32:32:4:4:4:0:0:2"], out=tmp_path / "g"
    )
    assert all(len(sequence) == 32 for sequence in result.sequences) and result.metrics["objective_calls"] == 8
    assert "diversity" in result.metrics["baselines"]["real_test_sequences"]
    real = motif.load(model).score([States().decode(rows[0].tolist())], ["ehrlich"])
    assert np.array_equal(real[:, 0], EhrlichFunction(32, 32, 4, 4, 4)(rows[:1]))
    assert "length (states)" in (tmp_path / "g" / "report.html").read_text(encoding="utf-8")


def test_strands_count_once_in_a_run(tmp_path: Path, motif_data: Path) -> None:
    task = {"domain": "bio", "task": "tfbind8"}
    (tmp_path / "in.csv").write_text("sequence\nAAAAAAAC\nGTTTTTTT\nACGTACGT\nACGTACGTA\n", encoding="utf-8")
    metrics = motif.evaluate(**task, input=tmp_path / "in.csv", objectives=["tfbind8:SIX6"], out=tmp_path / "e")
    assert metrics["objective_calls"] == 3 and metrics["values"]["without_value"] == 1
    assert metrics["constraints"] == {"checked": 4, "violated": 1}
    source = random.Random(0)
    model = trained(task, ["".join(source.choices("ACGT", k=8)) for _ in range(60)], tmp_path / "t")
    drawn = motif.generate(
        **task, checkpoint=model, n=5, objectives=["tfbind8:CRX"], constraints=["length:8"], out=tmp_path / "g"
    )
    assert drawn.scores.shape == (5, 1) and np.isfinite(drawn.scores).all()


def test_a_task_without_a_set_asks_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="task ehrlich has no data set: pass input=FILE"):
        motif.prepare(domain="bio", task="ehrlich", out=tmp_path / "p")
    assert not list(tmp_path.iterdir())


def test_an_objective_without_its_table_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTIF_DATA", str(tmp_path / "nowhere"))
    (tmp_path / "in.csv").write_text("sequence\nACGTACGT\n", encoding="utf-8")
    words = {"domain": "bio", "task": "tfbind8", "input": tmp_path / "in.csv", "objectives": ["tfbind8:SIX6"]}
    with pytest.raises(UserError, match="data set tfbind8: .* is missing; set MOTIF_DATA"):
        motif.evaluate(**words, out=tmp_path / "e")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]

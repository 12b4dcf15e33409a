"""The verbs as Python functions, in the size of a notebook."""

from __future__ import annotations

import types
from pathlib import Path

import numpy as np
import pytest

import pipelines as motif
from core.errors import UserError
from pipelines.cli import RUNS


def test_eight_peptides_of_the_bundled_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from domains.bio.tasks import PEPTIDE

    monkeypatch.chdir(tmp_path)
    model = motif.load(PEPTIDE.pretrained_folder)
    wanted = {"objectives": ["net_charge:near:4", "gravy:min"], "constraints": ["length:8..12", "forbid:NG"]}
    first = model.generate(n=8, **wanted)
    assert len(first.sequences) == 8
    assert all(8 <= len(peptide) <= 12 and "NG" not in peptide for peptide in first.sequences)
    assert first.scores.shape == (8, 2)
    assert np.array_equal(model.score(first.sequences, wanted["objectives"]), first.scores)
    assert first.metrics["constraints"] == {"checked": 8, "violated": 0}
    # It answers many times, each into a folder of its own.
    second = model.generate(n=3, seed=1)
    assert first.out != second.out and (first.out / "report.html").is_file() and (second.out / "metrics.json").is_file()
    repeated = motif.generate(n=8, **wanted, out=tmp_path / "again")
    assert repeated.sequences == first.sequences


def test_every_verb_is_a_function_and_stays_one(tiny: Path, tmp_path: Path) -> None:
    """Importing the module of a verb would put it in the function's place."""
    import pipelines.check
    import pipelines.evaluate
    import pipelines.finetune
    import pipelines.generate
    import pipelines.load
    import pipelines.prepare
    import pipelines.train  # noqa: F401

    for verb in (*RUNS, "list", "cite", "data", "check", "rerun", "load"):
        assert isinstance(getattr(motif, verb), types.FunctionType), verb
        assert verb in motif.__all__ and getattr(motif, verb).__doc__
    for number in range(2):
        assert len(motif.generate(checkpoint=tiny / "model", n=2, out=tmp_path / str(number)).sequences) == 2


def test_keys_with_dots_and_values_of_python(tiny: Path, tmp_path: Path) -> None:
    out = motif.train(
        data__path=tiny / "prepared",
        model="tiny",
        trainer__steps=1,
        trainer__validate_every=1,
        half=True,
        out=tmp_path / "a=b, c",
    )
    assert out == tmp_path / "a=b, c"
    body = motif.evaluate(checkpoint=out, data__path=tiny / "prepared", points=2, out=tmp_path / "e")
    assert body["values"]["likelihood"] == "ELBO (bound)"


def test_a_users_error_is_an_exception(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        motif.load(tmp_path / "nothing")
    with pytest.raises(UserError, match="unknown key 'm'"):
        motif.generate(m=3)

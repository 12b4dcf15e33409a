"""Processes whose sites are drawn anew, from the command line: trained, sampled under constraints, refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.processes._resampling_path import ResamplingPath
from pipelines.load import load
from tests.laws.toy_chains import variants
from tests.pipelines.conftest import Outcome

STEPS = ("trainer.steps=2", "trainer.validate_every=2", "trainer.warmup_steps=1", "model=tiny", "process.limit=20")


def given(key: str, source: str) -> list[str]:
    """`process=` and its source, where it has a choice, with the kind of answer that is converted."""
    choice = len([name for name, _ in variants(ResamplingPath) if name == key]) > 1
    return [f"process={key}", "process.parametrisation=posterior", *([f"process.source={source}"] if choice else [])]


# One source of each.
@pytest.mark.parametrize(("key", "source"), dict(variants(ResamplingPath)).items())
def test_from_training_to_samples(
    key: str, source: str, motif: Callable[..., Outcome], tiny: Path, tmp_path: Path
) -> None:
    model, data = tmp_path / "model", f"data.path={tiny / 'prepared'}"
    assert motif("train", data, *STEPS, *given(key, source), "process.schedule.name=cosine", f"out={model}").code == 0
    process: Any = load(model).model.process
    assert isinstance(process, ResamplingPath) and (process.source, process.parametrisation) == (source, "posterior")
    rules = "constraints=[length:6..9,forbid:NG,contains:K-x-K]"
    words = ("generate", f"checkpoint={model}", "n=6", "seed=3", "sampler=stepwise", "sampler.steps=9", rules)
    outs = [tmp_path / name for name in ("one", "two", "corrected")]
    for out, more in zip(outs, ((), ("batch_size=4",), ("sampler.corrector=1.5",)), strict=True):
        assert motif(*words, *more, f"out={out}").code == 0
        sequences = [line for line in (out / "samples.fasta").read_text().split() if line.isalpha()]
        assert len(sequences) == 6 and all(6 <= len(found) <= 9 and "NG" not in found for found in sequences)
        assert json.loads((out / "metrics.json").read_text())["constraints"]["violated"] == 0
    one, two, corrected = ((out / "samples.fasta").read_text() for out in outs)
    assert one == two != corrected


def test_what_they_cannot_do_is_refused(refused: Callable[..., None], tiny: Path) -> None:
    data = f"data.path={tiny / 'prepared'}"
    for words, message in (
        (("process=d3pm", "process.timesteps=0"), "D3pm: timesteps 0: the chain takes at least one step"),
        (("process=d3pm", "process.auxiliary=-1"), "D3pm: auxiliary -1: a finite weight that is not negative"),
    ):
        refused(message, "train", data, *STEPS, *words)

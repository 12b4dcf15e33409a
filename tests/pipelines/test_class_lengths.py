"""Classes of different lengths from a file to what is generated: each comes out as long as it is in the data."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import pipelines as motif
from core.errors import UserError
from core.processes._length import LengthPrior
from pipelines.load import Loaded

LENGTHS = {"tata": range(30, 36), "coli": range(8, 13)}
TENSOR = "process.length_prior.class_log_probability"
STEPS: dict[str, Any] = {"trainer.steps": 2, "trainer.validate_every": 1, "trainer.warmup_steps": 1}
TASK: dict[str, Any] = {"domain": "bio", "task": "regulatory_dna"}


def write(file: Path, lengths: dict[str, range], count: int) -> Path:
    source = random.Random(len(file.name))
    rows = ["sequence,class"]
    for number in range(count):
        kind = [*lengths][number % len(lengths)]
        rows.append("".join(source.choices("ACGT", k=source.choice(lengths[kind]))) + f",{kind}")
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("classes")


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Path:
    file = write(folder / "in.csv", LENGTHS, 300)
    return motif.prepare(**TASK, input=file, columns="sequence:sequence,class:class", out=folder / "prepared")


@pytest.fixture(scope="module")
def trained(prepared: Path) -> Path:
    settings = {"process": "mixture_flow", "model": "tiny", "process.limit": 60, "trainer.batch_tokens": 4000}
    return motif.train(**TASK, data__path=prepared, out=prepared.parent / "model", **settings, **STEPS)


@pytest.fixture(scope="module")
def loaded(trained: Path) -> Loaded:
    return motif.load(trained)


def drawn_lengths(loaded: Loaded, out: Path, **options: Any) -> list[int]:
    options = {"sampler": "stepwise", "sampler.steps": 1, "n": 200, **options}
    return [len(sequence) for sequence in loaded.generate(out=out, **options).sequences]


def lengths_follow_the_class(loaded: Loaded, out: Path) -> None:
    for kind, lengths in LENGTHS.items():
        found = drawn_lengths(loaded, out / kind, condition=f"class:{kind}")
        assert np.mean([lengths.start - 2 <= length <= lengths.stop + 1 for length in found]) > 0.9, kind
    found = drawn_lengths(loaded, out / "both")
    assert 0.3 < np.mean([length < 20 for length in found]) < 0.7


def test_the_class_that_is_asked_for_says_the_length(loaded: Loaded, tmp_path: Path) -> None:
    lengths_follow_the_class(loaded, tmp_path)


def test_lengths_of_another_law_are_caught(loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = LengthPrior.draw
    monkeypatch.setattr(LengthPrior, "draw", lambda self, noise, allowed, condition=None: true(self, noise, allowed))
    with pytest.raises(AssertionError):
        lengths_follow_the_class(loaded, tmp_path)


def test_a_constraint_holds_against_the_class(loaded: Loaded, tmp_path: Path) -> None:
    found = drawn_lengths(loaded, tmp_path / "o", condition="class:tata", constraints="[length:8-13]", n=50)
    assert set(found) <= set(range(8, 14))


def test_the_likelihood_knows_the_class(loaded: Loaded, prepared: Path, trained: Path, tmp_path: Path) -> None:
    body = motif.evaluate(**TASK, checkpoint=trained, data__path=prepared, n=20, points=4, out=tmp_path / "e")
    values = body["values"]
    # Half of the sequences are of each class, so a class is worth log 2 a sequence beside what the network says.
    assert values["nll"] < values["nll_unconditional"]
    prior = loaded.model.process.length_prior
    assert isinstance(prior, LengthPrior) and loaded.conditions is not None
    row, _ = loaded.conditions.ask({"class": "coli"})
    gain = float(prior.nll(torch.tensor([10])) - prior.nll(torch.tensor([10]), row))
    assert gain == pytest.approx(np.log(2), abs=0.1)


def test_finetuning_learns_the_lengths_of_each_class_anew(trained: Path, folder: Path, tmp_path: Path) -> None:
    file = write(folder / "mine.csv", {"tata": range(14, 17), "coli": range(40, 44)}, 200)
    words = {"columns": "sequence:sequence,class:class", "adapt": "full", "points": 2, "trainer.batch_tokens": 4000}
    out = motif.finetune(**TASK, checkpoint=trained, input=file, out=tmp_path / "fine", **words, **STEPS)
    found = motif.load(out)
    tata = drawn_lengths(found, tmp_path / "t", condition="class:tata")
    coli = drawn_lengths(found, tmp_path / "c", condition="class:coli")
    assert np.median(tata) in range(14, 17) and np.median(coli) in range(40, 44)


def older(trained: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    shutil.copytree(trained, folder)
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_a_checkpoint_from_before_draws_every_class_by_one_law(trained: Path, loaded: Loaded, tmp_path: Path) -> None:
    before = motif.load(older(trained, tmp_path / "older", lambda tensors: tensors.pop(TENSOR)))
    short = [length < 20 for length in drawn_lengths(before, tmp_path / "a", condition="class:tata")]
    assert 0.3 < np.mean(short) < 0.7
    same = [drawn_lengths(each, tmp_path / f"b{place}", n=40) for place, each in enumerate((before, loaded))]
    assert same[0] == same[1]


def test_other_tensors_must_be_there(trained: Path, tmp_path: Path) -> None:
    def lose(tensors: dict[str, torch.Tensor]) -> None:
        del tensors[TENSOR], tensors["process.length_prior.log_probability"]

    with pytest.raises(UserError, match="lacks tensor process.length_prior.log_probability"):
        motif.load(older(trained, tmp_path / "older", lose))
    with pytest.raises(UserError, match="class_log_probability is "):
        motif.load(older(trained, tmp_path / "cut", lambda t: t.update({TENSOR: t[TENSOR][:1].contiguous()})))


def test_a_model_without_classes_stores_no_law_of_any(tiny: Path) -> None:
    assert TENSOR not in load_file(tiny / "model" / "model.safetensors")

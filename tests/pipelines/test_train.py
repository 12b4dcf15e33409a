"""Training: an interrupted call goes on where it stopped, and ends with the weights of an uninterrupted one."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import pipelines as motif
from core.errors import UserError
from core.training.module import GenerativeModule

# Dropout on and validation between the stop and the checkpoint before it: both must not show.
SETTINGS: dict[str, Any] = {
    "model": "tiny",
    "model.dropout": 0.2,
    "process": "autoregressive",
    "trainer.steps": 9,
    "trainer.validate_every": 4,
    "trainer.save_every": 3,
    "trainer.batch_tokens": 200,
    "trainer.warmup_steps": 2,
}
STOP = 7
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    source = random.Random(0)
    peptides = ["".join(source.choices("ACDEFGHIKLMNPQRSTVWY", k=source.randint(5, 14))) for _ in range(80)]
    (folder / "in.fasta").write_text("".join(f">p{n}\n{peptide}\n" for n, peptide in enumerate(peptides)))
    return motif.prepare(input=folder / "in.fasta", out=folder / "shards")


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Step and content of every training batch that a module sees."""
    seen: list[tuple[int, str]] = []
    true = GenerativeModule.training_step

    def step(self: GenerativeModule, batch: Any, index: int) -> Any:
        seen.append((self.global_step, hashlib.sha256(batch.tokens.numpy().tobytes()).hexdigest()))
        return true(self, batch, index)

    monkeypatch.setattr(GenerativeModule, "training_step", step)
    return seen


def fitted(prepared: Path, out: Path, **more: Any) -> Path:
    return motif.train(data__path=prepared, out=out, **{**SETTINGS, **more})


def stopped(prepared: Path, out: Path, error: BaseException, patch: pytest.MonkeyPatch) -> None:
    """Training that ends with `error` before step STOP."""
    true = GenerativeModule.training_step

    def step(self: GenerativeModule, batch: Any, index: int) -> Any:
        if self.global_step == STOP:
            raise error
        return true(self, batch, index)

    with patch.context() as inner:
        inner.setattr(GenerativeModule, "training_step", step)
        with pytest.raises(type(error)):
            fitted(prepared, out)


@pytest.mark.parametrize(
    "error", [RuntimeError("power cut"), KeyboardInterrupt()], ids=lambda error: type(error).__name__
)
def test_stopped_and_resumed_training_gives_the_same_weights(
    error: BaseException,
    prepared: Path,
    tmp_path: Path,
    batches: list[tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = fitted(prepared, tmp_path / "whole")
    order = batches.copy()
    batches.clear()
    stopped(prepared, tmp_path / "cut", error, monkeypatch)
    assert batches == order[:STOP]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert not (tmp_path / "cut").exists()
    steps = tmp_path / "cut.partial" / "steps"
    assert (steps / "last.ckpt").is_file()
    batches.clear()
    cut = fitted(prepared, tmp_path / "cut")
    assert batches == order[STOP // 3 * 3 :], "data order after the stop"
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, cut))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert sorted(path.name for path in cut.iterdir()) == sorted(path.name for path in whole.iterdir())
    events = [json.loads(line)["event"] for line in (cut / "log.jsonl").read_text().splitlines()]
    assert events == ["start", "resume", "end"]


def test_another_configuration_does_not_resume(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(prepared, tmp_path / "cut", RuntimeError(), monkeypatch)
    with pytest.raises(UserError, match="unfinished run of another configuration"):
        fitted(prepared, tmp_path / "cut", seed=1)


def test_mixer_fills_the_pattern(prepared: Path, tmp_path: Path) -> None:
    import yaml

    few = {"trainer.steps": 1, "trainer.validate_every": 1}
    out = fitted(prepared, tmp_path / "model", mixer="min_gru", **{"mixer.expansion": 2.0}, **few)
    config = yaml.safe_load((out / "config.yaml").read_text())
    assert config["model"]["pattern"] == [{"name": "min_gru", "expansion": 2.0}]
    with pytest.raises(UserError, match="cannot honour"):
        fitted(prepared, tmp_path / "full", mixer="min_gru", process="mixture_flow", **few)
    assert not list(tmp_path.glob("full*"))


def test_gpu_settings_construct_on_a_cpu(prepared: Path, tmp_path: Path) -> None:
    few = {"trainer.steps": 1, "trainer.validate_every": 1, "trainer.batch_tokens": 200}
    out = fitted(prepared, tmp_path / "m", trainer="gpu", **{"trainer.accelerator": "cpu"}, **few)
    assert (out / "model.safetensors").is_file()


def test_compiled_training_keeps_the_names_of_its_weights(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compilation itself takes minutes on a CPU; what it is called on and what is saved does not."""
    compiled: list[type] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self)))
    few = {"trainer.steps": 1, "trainer.validate_every": 1}
    out = fitted(prepared, tmp_path / "m", **few, **{"trainer.compile": True})
    assert [kind.__name__ for kind in compiled] == ["Backbone"]
    assert motif.load(out).model.parameter_count > 0


def test_a_stop_after_the_last_step_trains_no_further(
    prepared: Path, tmp_path: Path, batches: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["pipelines.train"], "write_reference", fail)
        with pytest.raises(RuntimeError, match="disk full"):
            fitted(prepared, tmp_path / "model")
    batches.clear()
    assert (fitted(prepared, tmp_path / "model") / "model.safetensors").is_file()
    assert not batches


@pytest.mark.slow
def test_prepared_shards_need_no_library_of_a_domain(prepared: Path, tmp_path: Path) -> None:
    words = [f"{key}={value}" for key, value in SETTINGS.items()]
    blocked = ("Bio", "rdkit", "music21", "miditok")
    command = ["train", f"data.path={prepared}", *words, f"out={tmp_path}"]
    script = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        f"from pipelines.cli import main; sys.exit(main({command}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "model.safetensors").is_file()

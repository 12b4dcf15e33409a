"""Checkpoints of others, damaged or hostile, through the real commands."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file


def _config(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def rewrite(folder: Path) -> None:
        file = folder / "config.yaml"
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        change(config)
        file.write_text(yaml.safe_dump(config), encoding="utf-8")

    return rewrite


def _weights(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return rewrite


HEAD = "network.backbone.head.weight"
CHECKPOINTS = {
    "none": (shutil.rmtree, "checkpoint {folder}: no such folder"),
    "foreign": (
        lambda folder: [path.unlink() for path in folder.iterdir() if path.name != "card.md"],
        "{folder}: not a checkpoint, config.yaml is missing",
    ),
    "no_weights": (
        lambda folder: (folder / "model.safetensors").unlink(),
        "{folder}: not a checkpoint, model.safetensors is missing",
    ),
    "of_another_program": (
        lambda folder: (folder / "config.yaml").write_text("architectures: [Bert]\n", encoding="utf-8"),
        "{folder}/config.yaml: not a Motif checkpoint, it describes no task, model and process",
    ),
    "target": (
        _config(lambda config: config["process"].update({"_target_": "os.system"})),
        "{folder}/config.yaml: key process._target_ is refused, a checkpoint's config is data only",
    ),
    "resolver": (
        _config(lambda config: config.update(seed="${oc.env:HOME}")),
        "{folder}/config.yaml: value of seed is refused, a checkpoint names registered members only",
    ),
    "process_from_a_file": (
        _config(lambda config: config["process"].update(name="./evil.py:Evil")),
        "{folder}/config.yaml: its process comes from a file, which a checkpoint may not load by itself: "
        "name the file you trust as process=path/to/file.py:Class",
    ),
    "unknown_process": (
        _config(lambda config: config["process"].update(name="mixture_flows")),
        "unknown process 'mixture_flows': did you mean 'mixture_flow'?",
    ),
    "nan": (
        _weights(lambda tensors: tensors[HEAD].fill_(torch.nan)),
        "{folder}/model.safetensors: " + HEAD + " holds values that are not finite, the file is damaged",
    ),
    "another_shape": (
        _weights(lambda tensors: tensors.update({HEAD: torch.zeros(3, 32)})),
        "{folder}/model.safetensors: " + HEAD + " is (3, 32), the model needs (20, 32)",
    ),
    "another_version": (
        _weights(lambda tensors: tensors.pop(HEAD)),
        "{folder}/model.safetensors: lacks tensor " + HEAD + "; the checkpoint is of another model version",
    ),
    "tokenizer_from_a_file": (
        lambda folder: (folder / "tokenizer.json").write_text('{"tokenizer": "./e.py:E", "settings": {}}'),
        "{folder}/tokenizer.json: value of name is refused, a checkpoint names registered members only",
    ),
}


@pytest.mark.parametrize("verb", ["generate", "evaluate"])
@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_foreign_or_corrupt_checkpoint_is_refused(
    case: str, verb: str, refused: Callable, tiny: Path, tmp_path: Path
) -> None:
    change, message = CHECKPOINTS[case]
    folder = tmp_path / "model"
    shutil.copytree(tiny / "model", folder)
    change(folder)
    words = ("n=2",) if verb == "generate" else (f"data.path={tiny / 'prepared'}",)
    refused(message.format(folder=folder), verb, f"checkpoint={folder}", *words)


CORRUPT = "{file}: corrupt or not safetensors ("
DAMAGED = {
    "truncated_weights": ("model.safetensors", lambda raw: raw[:-9], CORRUPT),
    "pickled_weights": ("model.safetensors", lambda raw: b"\x80\x04cos\nsystem\n.", CORRUPT),
    "broken_config": ("config.yaml", lambda raw: b"task: {", "{file}: unreadable ("),
    "python_in_the_config": ("config.yaml", lambda raw: raw + b"x: !!python/name:os.system\n", "{file}: unreadable ("),
    "broken_tokenizer": ("tokenizer.json", lambda raw: raw[:20], "{file}: unreadable ("),
    "broken_reference": ("reference.csv.gz", lambda raw: raw[:-9], "{file}: not a table of real sequences"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_of_a_checkpoint_is_named(case: str, motif: Callable, tiny: Path, tmp_path: Path) -> None:
    name, damage, message = DAMAGED[case]
    shutil.copytree(tiny / "model", tmp_path / "model")
    file = tmp_path / "model" / name
    file.write_bytes(damage(file.read_bytes()))
    outcome = motif("generate", f"checkpoint={tmp_path / 'model'}", "n=2", f"out={tmp_path / 'out'}")
    assert outcome.code == 2 and outcome.out == ""
    assert outcome.err.startswith("motif: " + message.format(file=file)) and outcome.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_file_is_not_judged_beside_a_checkpoint_that_is_not_there(refused: Callable, tmp_path: Path) -> None:
    (tmp_path / "in.fasta").write_text(">a\nGIKL\n", encoding="utf-8")
    words = ("evaluate", f"input={tmp_path / 'in.fasta'}", f"checkpoint={tmp_path / 'none'}")
    refused(f"checkpoint {tmp_path / 'none'}: no such folder", *words)


def test_a_checkpoint_runs_no_code_of_a_file_that_it_names(motif: Callable, tiny: Path, tmp_path: Path) -> None:
    marker, evil = tmp_path / "ran", tmp_path / "evil.py"
    evil.write_text(f"open({str(marker)!r}, 'w')\n", encoding="utf-8")
    shutil.copytree(tiny / "model", tmp_path / "model")
    _config(lambda config: config["model"]["pattern"][0].update(name=f"{evil}:Evil"))(tmp_path / "model")
    assert motif("generate", f"checkpoint={tmp_path / 'model'}", "n=2", f"out={tmp_path / 'out'}").code == 2
    assert not marker.exists()

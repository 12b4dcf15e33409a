"""Checkpoints: a folder of config.yaml, model.safetensors, tokenizer.json and card.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from core.errors import UserError
from core.registry import is_file_reference
from core.training.model import GenerativeModel

FILES = ("config.yaml", "model.safetensors", "tokenizer.json")


def save_checkpoint(
    folder: Path, config: Mapping[str, Any], model: GenerativeModel, tokenizer: str, card: str, half: bool = False
) -> None:
    """Write a checkpoint; `half` stores floating-point weights in 16 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, value in model.state_dict().items():
        value = value.detach().cpu().contiguous()
        tensors[name] = value.half() if half and value.dtype == torch.float32 else value
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    (folder / "card.md").write_text(card, encoding="utf-8")


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration of a checkpoint, refused unless it is plain data.

    A config holds registry keys only: `_target_`, resolvers and references to files could run
    code of whoever wrote it.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"{folder}: not a checkpoint, {name} is missing")
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{folder / 'config.yaml'}: unreadable ({str(error).splitlines()[0]})") from error
    if not isinstance(config, dict) or not {"model", "process", "task"} <= set(config):
        raise UserError(f"{folder / 'config.yaml'}: not a Motif checkpoint, it names no task, model and process")
    _refuse_code(config, folder / "config.yaml", "")
    return config


def _refuse_code(value: Any, file: Path, where: str) -> None:
    if isinstance(value, dict):
        for key, part in value.items():
            if str(key).startswith("_"):
                raise UserError(f"{file}: key {where}{key} is refused, a checkpoint's config is data only")
            _refuse_code(part, file, f"{where}{key}.")
    elif isinstance(value, list):
        for index, part in enumerate(value):
            _refuse_code(part, file, f"{where}{index}.")
    elif isinstance(value, str) and ("${" in value or is_file_reference(value)):
        raise UserError(f"{file}: value of {where.rstrip('.')} is refused, a checkpoint names registered members only")


def load_weights(folder: Path, model: GenerativeModel) -> None:
    """Fill `model` from a checkpoint; the first differing tensor is named."""
    file = folder / "model.safetensors"
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file}: corrupt or not safetensors ({error})") from error
    expected = model.state_dict()
    for name in sorted(set(expected) ^ set(tensors)):
        side = "lacks" if name in expected else "has an unknown"
        raise UserError(f"{file}: {side} tensor {name}; the checkpoint is of another model version")
    for name, value in tensors.items():
        if value.shape != expected[name].shape:
            raise UserError(f"{file}: {name} is {tuple(value.shape)}, the model needs {tuple(expected[name].shape)}")
    model.load_state_dict({name: value.to(expected[name].dtype) for name, value in tensors.items()})


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """The saved tokenizer description."""
    try:
        saved = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        return {"name": saved["tokenizer"], **saved["settings"]}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / 'tokenizer.json'}: unreadable ({error})") from error

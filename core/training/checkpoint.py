"""Checkpoints: a folder of config.yaml, model.safetensors, tokenizer.json and card.md."""

from __future__ import annotations

import json
import re
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
# Descriptions are a few kilobytes; what is larger was not written by us.
_TEXT_CAP = 1 << 20
_WORD = re.compile(r"[a-z0-9_]+")
# What older checkpoints lack, and their modules make of the rest.
_YOUNGER = {"process.length_prior.class_log_probability"}


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
    (folder / "config.yaml").write_text(
        yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True), encoding="utf-8"
    )
    (folder / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    (folder / "card.md").write_text(card, encoding="utf-8")


def read_config(folder: Path, process: str | None = None, mixer: str | None = None) -> dict[str, Any]:
    """The configuration of a checkpoint, refused unless it is plain data.

    A config holds registry keys only: `_target_`, resolvers and references to files could run
    code of whoever wrote it. Where a checkpoint was trained with a process or mixer from a file,
    its user names that file as `process` or `mixer`, and it takes the place of the reference.
    """
    for name in FILES:
        if not (folder / name).is_file():
            raise UserError(f"{folder}: not a checkpoint, {name} is missing")
    file = folder / "config.yaml"
    config = _read_yaml(file)
    shapes = {"task": dict, "process": dict, "model": dict}
    if not isinstance(config, dict) or not all(isinstance(config.get(key), kind) for key, kind in shapes.items()):
        raise UserError(f"{file}: not a Motif checkpoint, it describes no task, model and process")
    pattern = config["model"].get("pattern")
    layers = [layer for layer in pattern if isinstance(layer, dict)] if isinstance(pattern, list) else []
    for key, reference, places in (("process", process, [config["process"]]), ("mixer", mixer, layers)):
        if reference is not None:
            _fill_in(file, key, reference, places)
        elif any(is_file_reference(str(place.get("name"))) for place in places):
            raise UserError(
                f"{file}: its {key} comes from a file, which a checkpoint may not load by itself: "
                f"name the file you trust as {key}=path/to/file.py:Class"
            )
    allowed = {reference for reference in (process, mixer) if reference is not None}
    _refuse_code(config, file, "", allowed)
    if not isinstance(config["process"].get("name"), str):
        raise UserError(f"{file}: process.name is missing, the checkpoint is of another version")
    # Both become parts of paths and of modules' names.
    for where, value in (("domain", config.get("domain")), ("task.name", config["task"].get("name"))):
        if not (isinstance(value, str) and _WORD.fullmatch(value)):
            raise UserError(f"{file}: {where} is {value!r}, not the name of one of ours")
    return config


def _fill_in(file: Path, key: str, reference: str, places: list[dict[str, Any]]) -> None:
    foreign = [place for place in places if is_file_reference(str(place.get("name")))]
    if not foreign:
        raise UserError(f"{file}: its {key} is a registered one, drop {key}={reference}")
    for place in foreign:
        place["name"] = reference


def _read_text(file: Path) -> str:
    if file.stat().st_size > _TEXT_CAP:
        raise UserError(f"{file}: {file.stat().st_size} bytes, more than any description of ours holds")
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: unreadable ({error.reason})") from error


def _read_yaml(file: Path) -> Any:
    text = _read_text(file)
    try:
        # Aliases can unfold without end.
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise UserError(f"{file}: YAML aliases are refused")
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{file}: unreadable ({str(error).splitlines()[0]})") from error


def _refuse_code(value: Any, file: Path, where: str, allowed: set[str]) -> None:
    if isinstance(value, dict):
        for key, part in value.items():
            if str(key).startswith("_"):
                raise UserError(f"{file}: key {where}{key} is refused, a checkpoint's config is data only")
            _refuse_code(part, file, f"{where}{key}.", allowed)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            _refuse_code(part, file, f"{where}{index}.", allowed)
    elif isinstance(value, str) and value not in allowed and ("${" in value or is_file_reference(value)):
        raise UserError(f"{file}: value of {where.rstrip('.')} is refused, a checkpoint names registered members only")


def load_weights(folder: Path, model: GenerativeModel) -> None:
    """Fill `model` from a checkpoint; the first differing tensor is named."""
    file = folder / "model.safetensors"
    try:
        tensors = load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{file}: corrupt or not safetensors ({error})") from error
    expected, parameters = model.state_dict(), dict(model.named_parameters())
    for name in sorted((set(expected) ^ set(tensors)) - (_YOUNGER - set(tensors))):
        side = "lacks" if name in expected else "has an unknown"
        raise UserError(f"{file}: {side} tensor {name}; the checkpoint is of another model version")
    for name, value in tensors.items():
        if value.shape != expected[name].shape:
            raise UserError(f"{file}: {name} is {tuple(value.shape)}, the model needs {tuple(expected[name].shape)}")
        # Buffers may hold infinite numbers: the log-probability of what cannot be.
        broken = ~value.isfinite() if name in parameters else value.isnan()
        if bool(broken.any()):
            raise UserError(f"{file}: {name} holds values that are not finite, the file is damaged")
    model.load_state_dict({name: value.to(expected[name].dtype) for name, value in tensors.items()})


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """The saved tokenizer description: plain data, like the config."""
    file = folder / "tokenizer.json"
    try:
        saved = json.loads(_read_text(file))
        description = {"name": saved["tokenizer"], **saved["settings"]}
        if not isinstance(description["name"], str):
            raise TypeError("a tokenizer's name is text")
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: unreadable ({error!r})") from error
    _refuse_code(description, file, "", set())
    return description

"""The folder of a run: written beside its place, moved there when it is complete."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from core.errors import UserError

SCHEMA = 1
# Batches drawn so far, while a run is unfinished.
DRAWN = "drawn.jsonl"
_REPORTED = ("motif-suite", "torch", "lightning", "numpy", "biopython", "rdkit")


class Run:
    """One run on its way: files go to `<out>.partial`, which `finish` moves to `out`.

    An unfinished folder of the same configuration is resumed; anything else that already stands
    there is refused. `config["command"]`, where given, is logged and is no part of the configuration.
    """

    def __init__(self, verb: str, config: Mapping[str, Any]) -> None:
        self.verb, self.config = verb, dict(config)
        self.command = self.config.pop("command", None)
        self.out = Path(config["out"])
        self.folder = self.out.with_name(self.out.name + ".partial")
        if self.out.exists() and (not self.out.is_dir() or any(self.out.iterdir())):
            raise UserError(f"{self.out}: exists and is not empty, choose another out=")
        saved = self.folder / "config.yaml"
        text = yaml.safe_dump({"verb": verb, **self.config}, sort_keys=False, allow_unicode=True)
        if saved.is_file() and saved.read_text(encoding="utf-8") != text:
            raise UserError(f"{self.folder}: holds an unfinished run of another configuration, remove it first")
        self.resumed = saved.is_file()
        if not self.resumed and self.folder.is_dir() and any(self.folder.iterdir()):
            raise UserError(f"{self.folder}: is not an unfinished run of ours, remove it or choose another out=")
        _make(self.folder)
        saved.write_text(text, encoding="utf-8")
        self._started = time.monotonic()
        self.log("resume" if self.resumed else "start", command=self.command)

    @property
    def seconds(self) -> float:
        """Since this call began."""
        return round(time.monotonic() - self._started, 3)

    def log(self, event: str, **fields: Any) -> None:
        """One line of log.jsonl."""
        with open(self.folder / "log.jsonl", "a", encoding="utf-8") as stream:
            stream.write(json.dumps({"time": round(time.time(), 3), "event": event, **fields}) + "\n")

    def metrics(self, **fields: Any) -> dict[str, Any]:
        """Write metrics.json; `fields` fill the parts that the verb knows."""
        body = {
            "schema": SCHEMA,
            "verb": self.verb,
            "domain": self.config["domain"],
            "task": self.config["task"]["name"],
            "protocol": fields.get("protocol"),
            "data": fields.get("data", {"name": None, "sha256": None, "n": 0}),
            "model": fields.get("model", {"name": None, "parameters": 0}),
            "samples": fields.get("samples", {"sha256": None, "n": 0}),
            "seed": self.config["seed"],
            "values": fields.get("values", {}),
            "baselines": fields.get("baselines", {}),
            "constraints": fields.get("constraints", {"checked": 0, "violated": 0}),
            "objective_calls": fields.get("objective_calls", 0),
            "objective_evaluations": fields.get("objective_evaluations", {}),
            "network_calls": fields.get("network_calls", 0),
            "seconds": self.seconds,
            "versions": _versions(),
        }
        text = json.dumps(_finite(body), indent=1, allow_nan=False)
        (self.folder / "metrics.json").write_text(text + "\n", encoding="utf-8")
        return body

    def finish(self) -> Path:
        """Move the complete folder to `out`, without what only a resumed call would read."""
        (self.folder / DRAWN).unlink(missing_ok=True)
        self.log("end")
        if self.out.exists():
            self.out.rmdir()
        os.replace(self.folder, self.out)
        return self.out


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}), choose another out=") from error


def _versions() -> dict[str, str]:
    """Of what is installed: training needs no library of a domain."""
    found = {}
    for name in _REPORTED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: what is undefined becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_run(folder: Path) -> dict[str, Any]:
    """The configuration of a finished run."""
    file = folder / "config.yaml"
    if not file.is_file():
        raise UserError(f"{folder}: not a run, config.yaml is missing")
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: unreadable ({str(error).splitlines()[0]})") from error
    if not isinstance(config, dict) or "verb" not in config:
        raise UserError(f"{file}: not the configuration of a run")
    return config


def file_hash(path: Path) -> str:
    """sha256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def values_hash(values: Sequence[Any]) -> str:
    """sha256 of samples in their order: equal samples, equal hash, whatever file they are written to."""
    return hashlib.sha256(json.dumps([str(value) for value in values]).encode()).hexdigest()

"""Token shards: what `prepare` writes and training reads."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.data.conditions import Column
from core.errors import UserError

SCHEMA = 1
_FILES = ("tokens.bin", "offsets.npy", "meta.json")
_CONDITIONS = "conditions.npy"
_REMEDY = "run `motif prepare` again"


@dataclass(frozen=True, eq=False)
class TokenShards:
    """Sequences of token ids on disk, memory-mapped; item i is one sequence.

    A folder of `tokens.bin` (uint16, little endian, sequences end to end), `offsets.npy` (int64,
    one more than sequences) and `meta.json` (schema, tokenizer hash, sequences of each split in
    the order they lie, sha256 of the data). `meta.json` is written last, so a folder without it
    is a write that did not finish. Where sequences have conditions, `conditions.npy` holds the raw
    value of each of `columns` (float64, NaN where there is none) and `meta.json` the columns.
    """

    folder: Path
    tokens: np.ndarray
    offsets: np.ndarray
    counts: Mapping[str, int]
    tokenizer_sha256: str
    sha256: str
    columns: tuple[Column, ...] = ()
    conditions: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    @staticmethod
    def write(
        folder: str | Path,
        splits: Mapping[str, Iterable[Sequence[int] | np.ndarray]],
        tokenizer_sha256: str,
        columns: Sequence[Column] = (),
        conditions: np.ndarray | None = None,
    ) -> TokenShards:
        """Store the sequences of each split; replaces shards that stand in `folder`.

        conditions: raw values `[N, K]` of the `columns`, the splits one after the other.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("meta.json", _CONDITIONS):
            (folder / name).unlink(missing_ok=True)
        digest, offsets, counts = hashlib.sha256(), [0], {}
        with open(folder / "tokens.bin.part", "wb") as stream:
            for name, sequences in splits.items():
                before = len(offsets)
                for sequence in sequences:
                    data = _as_bytes(sequence)
                    stream.write(data)
                    digest.update(data)
                    offsets.append(offsets[-1] + len(sequence))
                counts[name] = len(offsets) - before
        places = np.asarray(offsets, dtype="<i8")
        digest.update(places.tobytes())
        with open(folder / "offsets.npy.part", "wb") as stream:
            np.save(stream, places, allow_pickle=False)
        meta: dict[str, Any] = {"schema": SCHEMA, "tokenizer_sha256": tokenizer_sha256, "counts": counts}
        if columns:
            meta["columns"] = [{"name": column.name, "labels": list(column.labels)} for column in columns]
            values = np.asarray(conditions, dtype="<f8")
            digest.update(_condition_bytes(meta["columns"], values))
            np.save(folder / _CONDITIONS, values, allow_pickle=False)
        meta["sha256"] = digest.hexdigest()
        (folder / "meta.json.part").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
        for name in _FILES:
            os.replace(folder / f"{name}.part", folder / name)
        return TokenShards.open(folder)

    @staticmethod
    def open(folder: str | Path, tokenizer_sha256: str | None = None) -> TokenShards:
        """Map the shards of a folder, their hash checked.

        Raises `UserError` for a folder that is no such thing, is damaged, or was written with
        another tokenizer than the one asked for.
        """
        folder = Path(folder)
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if missing:
            raise UserError(f"{folder}: not a folder of token shards, {missing[0]} is missing: {_REMEDY}")
        meta = _read_meta(folder / "meta.json")
        if tokenizer_sha256 is not None and meta["tokenizer_sha256"] != tokenizer_sha256:
            raise UserError(f"{folder}: written with another tokenizer than the model's: {_REMEDY}")
        tokens, offsets = _map_tokens(folder / "tokens.bin"), _map_offsets(folder / "offsets.npy")
        if len(offsets) != sum(meta["counts"].values()) + 1 or offsets[0] != 0 or offsets[-1] != len(tokens):
            raise UserError(f"{folder}: tokens.bin, offsets.npy and meta.json do not belong together: {_REMEDY}")
        digest = hashlib.sha256(tokens.data)
        digest.update(offsets.tobytes())
        columns, conditions = (), np.zeros((len(offsets) - 1, 0))
        if "columns" in meta:
            conditions = _read_conditions(folder / _CONDITIONS, (len(offsets) - 1, len(meta["columns"])))
            digest.update(_condition_bytes(meta["columns"], conditions))
            columns = tuple(Column(entry["name"], tuple(entry["labels"])) for entry in meta["columns"])
        if digest.hexdigest() != meta["sha256"] or (np.diff(offsets) < 0).any():
            raise UserError(f"{folder}: the data do not match the sha256 in meta.json: {_REMEDY}")
        keys = meta["tokenizer_sha256"], meta["sha256"]
        return TokenShards(folder, tokens, offsets, meta["counts"], *keys, columns, conditions)

    def split(self, name: str) -> TokenShards:
        """The sequences of one split."""
        if name not in self.counts:
            raise UserError(f"{self.folder}: no split {name!r}, only {', '.join(self.counts) or 'none'}")
        names = list(self.counts)
        start = sum(self.counts[other] for other in names[: names.index(name)])
        count = self.counts[name]
        rows = self.conditions[start : start + count]
        return replace(self, offsets=self.offsets[start : start + count + 1], counts={name: count}, conditions=rows)

    def require(self, *names: str) -> None:
        """`UserError` for a split that holds no sequence."""
        for name in names:
            if not len(self.split(name)):
                raise UserError(f"{self.folder}: the split {name} is empty, prepare more sequences")

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, int64."""
        return np.diff(self.offsets)

    def token_counts(self, size: int) -> np.ndarray:
        """How often each of the ids 0..size-1 occurs, int64."""
        return np.bincount(self.tokens[self.offsets[0] : self.offsets[-1]], minlength=size)[:size]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        index %= len(self)
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


def _as_bytes(sequence: Sequence[int] | np.ndarray) -> bytes:
    ids = np.asarray(sequence, dtype=np.int64)
    if ids.ndim != 1 or (len(ids) and (ids.min() < 0 or ids.max() > 0xFFFF)):
        raise ValueError("a sequence is a flat list of token ids from 0 to 65535")
    return ids.astype("<u2").tobytes()


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not JSON: {_REMEDY}") from error
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        found = meta.get("schema") if isinstance(meta, dict) else None
        raise UserError(f"{path}: schema {found!r}, expected {SCHEMA}: {_REMEDY}")
    counts = meta.get("counts")
    if not isinstance(counts, dict) or not all(type(count) is int and count >= 0 for count in counts.values()):
        raise UserError(f"{path}: counts must give the sequences of each split: {_REMEDY}")
    for key in ("tokenizer_sha256", "sha256"):
        if not isinstance(meta.get(key), str):
            raise UserError(f"{path}: {key} is missing: {_REMEDY}")
    if not isinstance(meta.get("columns", []), list) or not all(map(_is_column, meta.get("columns", []))):
        raise UserError(f"{path}: columns must give the name and the labels of each condition: {_REMEDY}")
    return meta


def _is_column(entry: Any) -> bool:
    if not isinstance(entry, dict) or set(entry) != {"name", "labels"} or not isinstance(entry["labels"], list):
        return False
    return all(isinstance(text, str) for text in (entry["name"], *entry["labels"]))


def _condition_bytes(columns: list[dict[str, Any]], values: np.ndarray) -> bytes:
    """What the hash of the data takes in of the conditions."""
    return json.dumps(columns).encode() + values.tobytes()


def _read_conditions(path: Path, shape: tuple[int, int]) -> np.ndarray:
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not an array of conditions: {_REMEDY}") from error
    if not isinstance(values, np.ndarray) or values.dtype != np.dtype("<f8") or values.shape != shape:
        raise UserError(f"{path}: not a float64 array of {shape[0]} sequences and {shape[1]} conditions: {_REMEDY}")
    return values


def _map_tokens(path: Path) -> np.ndarray:
    size = path.stat().st_size
    if size % 2:
        raise UserError(f"{path}: {size} bytes are no whole number of tokens: {_REMEDY}")
    # An empty file cannot be mapped.
    return np.memmap(path, dtype="<u2", mode="r") if size else np.zeros(0, dtype="<u2")


def _map_offsets(path: Path) -> np.ndarray:
    try:
        offsets = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not an array of offsets: {_REMEDY}") from error
    if not isinstance(offsets, np.ndarray) or offsets.dtype != np.dtype("<i8") or offsets.ndim != 1 or not len(offsets):
        raise UserError(f"{path}: not a flat int64 array of offsets: {_REMEDY}")
    return offsets

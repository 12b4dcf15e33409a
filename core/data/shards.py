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
from jaxtyping import Float
from torch import Tensor

from core.data.conditions import Column, Conditions
from core.data.token_store import REMEDY, TokenStore
from core.errors import UserError

SCHEMA = 1
_TOKENS = ("tokens.bin", "offsets.npy")
_SOURCES = ("sources.bin", "source_offsets.npy")
_CONDITIONS = "conditions.npy"
_META = "meta.json"


@dataclass(frozen=True, eq=False)
class TokenShards:
    """Sequences of token ids on disk, memory-mapped; item i is one sequence.

    A folder of `tokens.bin` (uint16, little endian, sequences end to end), `offsets.npy` (int64,
    one more than sequences) and `meta.json` (schema, tokenizer hash, sequences of each split in
    the order they lie, sha256 of the data). `meta.json` is written last, so a folder without it
    is a write that did not finish. Where sequences have conditions, `conditions.npy` holds the raw
    value of each of `columns` (float64, NaN where there is none) and `meta.json` the columns. Where
    they are made from others, `sources.bin` and `source_offsets.npy` hold the source of each, empty
    where it has none, and `meta.json` says so.
    """

    folder: Path
    store: TokenStore
    counts: Mapping[str, int]
    tokenizer_sha256: str
    sha256: str
    columns: tuple[Column, ...] = ()
    conditions: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    sources: TokenStore | None = None

    @staticmethod
    def write(
        folder: str | Path,
        splits: Mapping[str, Iterable[Sequence[int] | np.ndarray]],
        tokenizer_sha256: str,
        columns: Sequence[Column] = (),
        conditions: np.ndarray | None = None,
        sources: Mapping[str, Iterable[Sequence[int] | np.ndarray]] | None = None,
    ) -> TokenShards:
        """Store the sequences of each split; replaces shards that stand in `folder`.

        conditions: raw values `[N, K]` of the `columns`, the splits one after the other. sources: one
        for each sequence, by split.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (_META, _CONDITIONS, *_SOURCES):
            (folder / name).unlink(missing_ok=True)
        digest, written = hashlib.sha256(), [*_TOKENS]
        counts = TokenStore.write(*_files(folder, _TOKENS, ".part"), splits, digest)
        meta: dict[str, Any] = {"schema": SCHEMA, "tokenizer_sha256": tokenizer_sha256, "counts": counts}
        if columns:
            meta["columns"] = [{"name": column.name, "labels": list(column.labels)} for column in columns]
            values = np.asarray(conditions, dtype="<f8")
            digest.update(_condition_bytes(meta["columns"], values))
            np.save(folder / _CONDITIONS, values, allow_pickle=False)
        if sources is not None:
            meta["sources"] = True
            if TokenStore.write(*_files(folder, _SOURCES, ".part"), sources, digest) != counts:
                raise ValueError("there are not as many sources as sequences in each split")
            written += _SOURCES
        meta["sha256"] = digest.hexdigest()
        (folder / f"{_META}.part").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")
        for name in (*written, _META):
            os.replace(folder / f"{name}.part", folder / name)
        return TokenShards.open(folder)

    @staticmethod
    def open(folder: str | Path, tokenizer_sha256: str | None = None) -> TokenShards:
        """Map the shards of a folder, their hash checked.

        Raises `UserError` for a folder that is no such thing, is damaged, or was written with
        another tokenizer than the one asked for.
        """
        folder = Path(folder)
        _require_files(folder, (*_TOKENS, _META))
        meta = _read_meta(folder / _META)
        if tokenizer_sha256 is not None and meta["tokenizer_sha256"] != tokenizer_sha256:
            raise UserError(f"{folder}: written with another tokenizer than the model's: {REMEDY}")
        digest, count = hashlib.sha256(), sum(meta["counts"].values())
        store, sources = TokenStore.open(*_files(folder, _TOKENS), count, digest), None
        columns, conditions = (), np.zeros((count, 0))
        if "columns" in meta:
            conditions = _read_conditions(folder / _CONDITIONS, (count, len(meta["columns"])))
            digest.update(_condition_bytes(meta["columns"], conditions))
            columns = tuple(Column(entry["name"], tuple(entry["labels"])) for entry in meta["columns"])
        if "sources" in meta:
            _require_files(folder, _SOURCES)
            sources = TokenStore.open(*_files(folder, _SOURCES), count, digest)
        falling = any((each.lengths < 0).any() for each in (store, sources) if each is not None)
        if digest.hexdigest() != meta["sha256"] or falling:
            raise UserError(f"{folder}: the data do not match the sha256 in meta.json: {REMEDY}")
        keys = meta["tokenizer_sha256"], meta["sha256"]
        return TokenShards(folder, store, meta["counts"], *keys, columns, conditions, sources)

    def split(self, name: str) -> TokenShards:
        """The sequences of one split."""
        if name not in self.counts:
            raise UserError(f"{self.folder}: no split {name!r}, only {', '.join(self.counts) or 'none'}")
        names = list(self.counts)
        start = sum(self.counts[other] for other in names[: names.index(name)])
        count = self.counts[name]
        rows, sources = self.conditions[start : start + count], self.sources
        return replace(
            self,
            store=self.store.part(start, count),
            counts={name: count},
            conditions=rows,
            sources=None if sources is None else sources.part(start, count),
        )

    def require(self, *names: str) -> None:
        """`UserError` for a split that holds no sequence."""
        for name in names:
            if not len(self.split(name)):
                raise UserError(f"{self.folder}: the split {name} is empty, prepare more sequences")

    def condition(self, conditions: Conditions | None) -> Float[Tensor, "N C"] | None:
        """What `conditions` makes of the sequences' columns; None where there are none."""
        if conditions is None or not self.columns:
            return None
        return conditions.encode(conditions.matching(self.columns, self.conditions))

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, int64."""
        return self.store.lengths

    def token_counts(self, size: int) -> np.ndarray:
        """How often each of the ids 0..size-1 occurs, int64."""
        return self.store.token_counts(size)

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.store[index]


def _files(folder: Path, names: tuple[str, str], suffix: str = "") -> tuple[Path, Path]:
    """Tokens and offsets of a store; with the suffix `.part`, where they lie until all is written."""
    return folder / (names[0] + suffix), folder / (names[1] + suffix)


def _require_files(folder: Path, names: Sequence[str]) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder}: not a folder of token shards, {missing[0]} is missing: {REMEDY}")


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not JSON: {REMEDY}") from error
    if not isinstance(meta, dict) or meta.get("schema") != SCHEMA:
        found = meta.get("schema") if isinstance(meta, dict) else None
        raise UserError(f"{path}: schema {found!r}, expected {SCHEMA}: {REMEDY}")
    counts = meta.get("counts")
    if not isinstance(counts, dict) or not all(type(count) is int and count >= 0 for count in counts.values()):
        raise UserError(f"{path}: counts must give the sequences of each split: {REMEDY}")
    for key in ("tokenizer_sha256", "sha256"):
        if not isinstance(meta.get(key), str):
            raise UserError(f"{path}: {key} is missing: {REMEDY}")
    if meta.get("sources", True) is not True:
        raise UserError(f"{path}: sources is either true or not there: {REMEDY}")
    if not isinstance(meta.get("columns", []), list) or not all(map(_is_column, meta.get("columns", []))):
        raise UserError(f"{path}: columns must give the name and the labels of each condition: {REMEDY}")
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
        raise UserError(f"{path}: not an array of conditions: {REMEDY}") from error
    if not isinstance(values, np.ndarray) or values.dtype != np.dtype("<f8") or values.shape != shape:
        raise UserError(f"{path}: not a float64 array of {shape[0]} sequences and {shape[1]} conditions: {REMEDY}")
    return values

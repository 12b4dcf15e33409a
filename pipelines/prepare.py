"""`motif prepare`: raw files -> checked, split, tokenised shards and a data card."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from core.data.clusters import clusters, held_out, joined
from core.data.conditions import Column
from core.data.shards import TokenShards
from core.errors import UserError
from core.tokenizers.base import Tokenizer
from domains.base import ReadReport
from domains.tasks import Task
from pipelines.data_sets import Part, named_set, parts_of
from pipelines.page import Page
from pipelines.reading import conditions_of, read_parts, write_skipped
from pipelines.run import Run, file_hash

SPLITS = ("train", "valid", "test")
_SHARE = 0.1


def prepare(config: Mapping[str, Any]) -> Path:
    """Read, check, split and tokenise; returns the folder."""
    task = Task.of(config)
    if config["split"] not in ("hash", "cluster"):
        raise UserError(f"split={config['split']}: known are hash and cluster")
    tokenizer = task.make_tokenizer()
    source = {} if config["input"] else config.get("data") or named_set(task.data)
    parts = parts_of(source) if source else [Part(Path(config["input"]), config["reader"])]
    report = read_parts(task, parts, config)
    gathered = gather(task, config, report, tokenizer, _SHARE if config["split"] == "cluster" else None)
    run = Run("prepare", {**config, "data": source or None})
    shards = gathered.write(run.folder, tokenizer, task.tokenizer["name"])
    name = source.get("name", parts[0].file.name)
    (run.folder / "card.md").write_text(gathered.card(name, parts), encoding="utf-8")
    values = {name: len(rows) for name, rows in gathered.encoded.items()} | {"skipped": len(report.skipped)}
    body = run.metrics(data={"name": name, "sha256": shards.sha256, "n": len(report.records)}, values=values)
    page = Page(run, body, task, None)
    page.prepared(run.folder)
    page.close()
    return run.finish()


@dataclass(frozen=True, eq=False)
class Gathered:
    """Records that were read, split and tokenised; nothing is written yet.

    encoded: ids by split. columns, values: the conditions, raw, of the splits one after the other.
    """

    report: ReadReport
    encoded: Mapping[str, Sequence[Sequence[int]]]
    columns: tuple[Column, ...]
    values: Float[np.ndarray, "N K"]

    def write(self, folder: Path, tokenizer: Tokenizer[Any], key: str) -> TokenShards:
        """Shards, the tokenizer of registry key `key`, and the table of skipped records."""
        digest = tokenizer.sha256(key)
        shards = TokenShards.write(folder, self.encoded, digest, self.columns, self.values)
        (folder / "tokenizer.json").write_text(tokenizer.to_json(key), encoding="utf-8")
        write_skipped(folder / "skipped.csv", self.report)
        return shards

    def card(self, name: str, parts: Sequence[Part]) -> str:
        """What the data are, and the files they come from."""
        lines = [f"# Data card: {name}", ""]
        for part in parts:
            what = "file" if part.label is None else f"file of class {part.label}"
            lines.append(f"- sha256 of the {what}: {file_hash(part.file)}")
            if part.origin:
                lines += [f"- source: {part.origin[0]}", f"- licence: {part.origin[1]}"]
        for name, rows in self.encoded.items():
            tokens = sum(map(len, rows))
            reach = f"{min(map(len, rows))}-{max(map(len, rows))}" if rows else "none"
            lines.append(f"- {name}: {len(rows)} sequences, {tokens} tokens, lengths {reach}")
        for place, column in enumerate(self.columns):
            known = self.values[~np.isnan(self.values[:, place]), place]
            what = f"class, {', '.join(column.labels)}" if column.labels else "scalar"
            lines.append(f"- condition {column.name}: {what}; {len(known)} of {len(self.values)} sequences have it")
        lines += [f"- skipped: {len(self.report.skipped)} (listed in skipped.csv)"]
        return "\n".join([*lines, *(f"- {statement}" for statement in self.report.statements)]) + "\n"


def gather(
    task: Task, config: Mapping[str, Any], report: ReadReport, tokenizer: Tokenizer[Any], share: float | None
) -> Gathered:
    """Tokenise and split what was read.

    By the data's own `split` column. Else, with a `share`, whole clusters of near-duplicates go to
    validation and to test until each has that share; without one, 80/10/10 by a hash of the sequence's
    family. Neither parts a family.
    """
    records = report.records
    tokens = [tokenizer.encode(record.value) for record in records]
    given = [record.fields.get("split") for record in records]
    texts = [record.value for record in records]
    families = texts if all(given) else task.package("families").families(texts, tokenizer)
    for record, split in zip(records, given, strict=True):
        if split is not None and split not in SPLITS:
            raise UserError(f"{record.file}: record {record.name}: split {split!r} is none of {', '.join(SPLITS)}")
    if all(given) or share is None:
        names = [split or _hashed_split(key, config["seed"]) for key, split in zip(families, given, strict=True)]
    else:
        groups = joined(clusters(tokens), np.unique(families, return_inverse=True)[1])
        places = held_out(groups, share, config["seed"])
        names = [split or SPLITS[place] for split, place in zip(given, places, strict=True)]
    rows = {name: [row for row, split in enumerate(names) if split == name] for name in SPLITS}
    if not rows["train"]:
        raise UserError("no record is in the split train")
    encoded = {name: [tokens[row] for row in rows[name]] for name in SPLITS}
    columns, values = conditions_of(task, config, [records[row] for name in SPLITS for row in rows[name]])
    return Gathered(report, encoded, columns, values)


def _hashed_split(value: str, seed: int) -> str:
    place = int(hashlib.sha256(f"{seed}:{value}".encode()).hexdigest()[:8], 16) % 10
    return "train" if place < 8 else SPLITS[place - 7]

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
from domains.data_sets import named_set
from domains.tasks import Task
from pipelines.data_sets import Part, parts_of
from pipelines.page import Page
from pipelines.reading import conditions_of, read_parts, sources_of, write_skipped
from pipelines.run import Run, file_hash

SPLITS = ("train", "valid", "test")
_SHARE = 0.1


def prepare(config: Mapping[str, Any]) -> Path:
    """Read, check, split and tokenise; returns the folder."""
    task = Task.of(config)
    if config["split"] not in ("hash", "cluster"):
        raise UserError(f"split={config['split']}: known are hash and cluster")
    tokenizer = task.make_tokenizer()
    source = _named(config, task)
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


def _named(config: Mapping[str, Any], task: Task) -> Mapping[str, Any]:
    """The named set that is read; empty where a file of the user's is."""
    if config["input"] or config.get("data"):
        return {} if config["input"] else config["data"]
    if task.data is None:
        raise UserError(f"task {task.name} has no data set: pass input=FILE")
    return named_set(task.data)


@dataclass(frozen=True, eq=False)
class Gathered:
    """Records that were read, split and tokenised; nothing is written yet.

    encoded: ids by split. columns, values: the conditions, raw, of the splits one after the other.
    sources: ids of each sequence's source by split, none where it has none; None where no sequence has.
    """

    report: ReadReport
    encoded: Mapping[str, Sequence[Sequence[int]]]
    columns: tuple[Column, ...]
    values: Float[np.ndarray, "N K"]
    sources: Mapping[str, Sequence[Sequence[int]]] | None = None

    def write(self, folder: Path, tokenizer: Tokenizer[Any], key: str) -> TokenShards:
        """Shards, the tokenizer of registry key `key`, and the table of skipped records."""
        digest = tokenizer.sha256(key)
        shards = TokenShards.write(folder, self.encoded, digest, self.columns, self.values, self.sources)
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
            reach = _reach([len(row) for row in rows])
            lines.append(f"- {name}: {len(rows)} sequences, {tokens} tokens, lengths {reach}")
        for place, column in enumerate(self.columns):
            known = self.values[~np.isnan(self.values[:, place]), place]
            what = f"class, {', '.join(column.labels)}" if column.labels else "scalar"
            lines.append(f"- condition {column.name}: {what}; {len(known)} of {len(self.values)} sequences have it")
        if self.sources is not None:
            known = [len(row) for rows in self.sources.values() for row in rows if row]
            lines.append(f"- source: {len(known)} of {len(self.values)} sequences have one, lengths {_reach(known)}")
        lines += [f"- skipped: {len(self.report.skipped)} (listed in skipped.csv)"]
        return "\n".join([*lines, *(f"- {statement}" for statement in self.report.statements)]) + "\n"


def _reach(lengths: Sequence[int]) -> str:
    return f"{min(lengths)}-{max(lengths)}" if lengths else "none"


def gather(
    task: Task, config: Mapping[str, Any], report: ReadReport, tokenizer: Tokenizer[Any], share: float | None
) -> Gathered:
    """Tokenise and split what was read.

    By the data's own `split` column. Else, with a `share`, whole clusters of near-duplicates go to
    validation and to test until each has that share; without one, 80/10/10 by a hash of the sequence's
    family. Neither parts a family, nor sequences of the same source.
    """
    records = report.records
    tokens = [tokenizer.encode(record.value) for record in records]
    sources = sources_of(config, records, tokenizer)
    given = [record.fields.get("split") for record in records]
    texts = [record.value for record in records]
    families = texts if all(given) else task.package("families").families(texts, tokenizer)
    families = _with_sources(families, [record.source for record in records])
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

    def parted(ids: Sequence[Sequence[int]]) -> dict[str, Sequence[Sequence[int]]]:
        return {name: [ids[row] for row in rows[name]] for name in SPLITS}

    columns, values = conditions_of(task, config, [records[row] for name in SPLITS for row in rows[name]])
    return Gathered(report, parted(tokens), columns, values, parted(sources) if sources else None)


def _with_sources(families: Sequence[str], sources: Sequence[Any]) -> Sequence[str]:
    """Families joined where the sources are the same, each named by its first in alphabetical order."""
    if all(source is None for source in sources):
        return families
    # A sequence without a source shares it with none.
    keys = [(row, None) if source is None else (0, source) for row, source in enumerate(sources)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    groups = joined(np.unique(families, return_inverse=True)[1], np.array([numbers[key] for key in keys]))
    first: dict[int, str] = {}
    for group, family in zip(groups.tolist(), families, strict=True):
        first[group] = min(first.get(group, family), family)
    return [first[group] for group in groups.tolist()]


def _hashed_split(value: str, seed: int) -> str:
    place = int(hashlib.sha256(f"{seed}:{value}".encode()).hexdigest()[:8], 16) % 10
    return "train" if place < 8 else SPLITS[place - 7]

"""`motif prepare`: raw files -> checked, split, tokenised shards and a data card."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.data.shards import TokenShards
from core.errors import UserError
from domains.base import ReadReport, Record
from domains.tasks import Task
from pipelines.data_sets import located
from pipelines.page import Page
from pipelines.reading import read_records, write_skipped
from pipelines.run import Run, file_hash

SPLITS = ("train", "valid", "test")


def prepare(config: Mapping[str, Any]) -> Path:
    """Read, check, split and tokenise; returns the folder."""
    task = Task.of(config)
    if config["input"]:
        file, reader = Path(config["input"]), config["reader"]
    else:
        file, reader = located(config["data"]), config["data"]["reader"]
    report = read_records(task, file, reader, config)
    tokenizer = task.make_tokenizer()
    splits = split_records(report.records, config["seed"])
    encoded = {name: [tokenizer.encode(record.value) for record in splits[name]] for name in SPLITS}
    run = Run("prepare", config)
    key = task.tokenizer["name"]
    shards = TokenShards.write(run.folder, encoded, tokenizer.sha256(key))
    (run.folder / "tokenizer.json").write_text(tokenizer.to_json(key), encoding="utf-8")
    (run.folder / "card.md").write_text(_card(file, config, report, encoded), encoding="utf-8")
    write_skipped(run.folder / "skipped.csv", report)
    values = {name: len(encoded[name]) for name in SPLITS} | {"skipped": len(report.skipped)}
    name = config["data"]["name"] if not config["input"] else file.name
    body = run.metrics(data={"name": name, "sha256": shards.sha256, "n": len(report.records)}, values=values)
    page = Page(run, body, task, None)
    page.prepared(run.folder)
    page.close()
    return run.finish()


def split_records(records: Sequence[Record], seed: int) -> dict[str, list[Record]]:
    """By the data's own `split` column, else 80/10/10 by a hash of the sequence."""
    found: dict[str, list[Record]] = {name: [] for name in SPLITS}
    for record in records:
        given = record.fields.get("split")
        if given is not None and given not in found:
            raise UserError(f"{record.file}: record {record.name}: split {given!r} is none of {', '.join(SPLITS)}")
        found[given or _hashed_split(str(record.value), seed)].append(record)
    if not found["train"]:
        raise UserError("no record is in the split train")
    return found


def _hashed_split(value: str, seed: int) -> str:
    place = int(hashlib.sha256(f"{seed}:{value}".encode()).hexdigest()[:8], 16) % 10
    return "train" if place < 8 else SPLITS[place - 7]


def _card(
    file: Path, config: Mapping[str, Any], report: ReadReport, encoded: Mapping[str, Sequence[Sequence[int]]]
) -> str:
    lines = [f"# Data card: {file.name}", "", f"- sha256 of the file: {file_hash(file)}"]
    if not config["input"]:
        lines += [f"- source: {config['data']['upstream']}", f"- licence: {config['data']['licence']}"]
    for name, rows in encoded.items():
        tokens = sum(map(len, rows))
        reach = f"{min(map(len, rows))}-{max(map(len, rows))}" if rows else "none"
        lines.append(f"- {name}: {len(rows)} sequences, {tokens} tokens, lengths {reach}")
    lines += [f"- skipped: {len(report.skipped)} (listed in skipped.csv)"]
    return "\n".join([*lines, *(f"- {statement}" for statement in report.statements)]) + "\n"

"""Sequences that are made from others, their sources: what a model asks of them, and where a user names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from core.data.sequence_batch import SOURCE
from core.data.shards import TokenShards
from core.errors import UserError
from core.tokenizers.base import Tokenizer
from core.training.model import GenerativeModel
from domains.base import ReadReport, named, shown
from pipelines.load import Loaded
from pipelines.reading import columns_of


def require_sources(model: GenerativeModel, shards: TokenShards, tokenizer: Tokenizer[Any], data: Path) -> None:
    """`UserError` where the model reads sources that the shards, prepared from `data`, lack or that do not fit."""
    other = min(model.reads - {SOURCE}, default=None)
    if other is not None:
        raise UserError(f"model.encoders.{other}: prepared data hold no memory of that name: call it source")
    if SOURCE in model.reads and shards.sources is None:
        raise UserError(
            f"{named(data)}: no sequence has a source, and the model reads one: prepare it with columns=source:HEADER"
        )
    for name in shards.counts if model.process.pairs else ():
        split = shards.split(name)
        assert split.sources is not None
        wrong = (split.lengths != split.sources.lengths).nonzero()[0]
        if len(wrong):
            row = int(wrong[0])
            text = shown(str(tokenizer.decode(split[row].tolist())))
            own, other = int(split.lengths[row]), int(split.sources.lengths[row])
            raise UserError(
                f"{named(data)}: record {row + 1} of {name}, {text}, has {own} tokens and its source "
                f"{other or 'is missing'}: a coupled source needs pairs of equal length"
            )


def refuse_unread_sources(model: GenerativeModel, shards: TokenShards, data: Path) -> None:
    """`UserError` where the sequences have sources that training would pass over."""
    if shards.sources is not None and SOURCE not in model.reads:
        raise UserError(
            f"{named(data)}: its sequences have sources, and the model reads none: train with model=encoder_decoder or "
            "process.source=coupled, or prepare it without columns=source:"
        )


def sources_asked(config: Mapping[str, Any], loaded: Loaded) -> tuple[Sequence[Any], ReadReport | None]:
    """The objects of `source=`, and what the reader says where it names a file; none where nothing is asked for.

    `UserError` for what cannot be read, and where the checkpoint needs sources or takes none.
    """
    text, reads = config["source"], SOURCE in loaded.model.reads
    if text is None:
        if reads:
            raise UserError(
                f"checkpoint {loaded.folder}: it makes sequences from others: add source=, a sequence or a file of them"
            )
        return (), None
    if not reads:
        raise UserError(f"source={shown(text)}: checkpoint {loaded.folder} was trained without sources, drop it")
    if Path(text).is_file():
        report = _read(Path(text), config["columns"], loaded)
        return _of_records(report, config["columns"]), report
    if config["columns"]:
        raise UserError(f"columns={config['columns']}: it describes the file of source=, which names none: drop it")
    try:
        if not loaded.tokenizer.encode(text):
            raise UserError("it is empty")
    except UserError as error:
        raise UserError(f"source={shown(text)}: neither a file nor a sequence: {error}") from error
    return (text,), None


def _read(file: Path, columns: str | None, loaded: Loaded) -> ReadReport:
    options = {"columns": columns_of(columns)} if columns else {}
    report = loaded.task.package("readers").read(file, None, loaded.tokenizer, **options)
    if report.skipped:
        raise UserError(f"source={report.skipped[0]}: mend it, or leave it out")
    return report


def _of_records(report: ReadReport, columns: str | None) -> Sequence[Any]:
    """The records' sources where `columns` names them, each once; else what the records are."""
    if not columns or "source" not in columns_of(columns):
        return [record.value for record in report.records]
    for record in report.records:
        if record.source is None:
            raise UserError(f"source={named(record.file)}: record {shown(record.name)} has no source: leave it out")
    return [*dict.fromkeys(record.source for record in report.records)]

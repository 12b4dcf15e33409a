"""`motif train`: prepared shards -> a checkpoint."""

from __future__ import annotations

import csv
import gzip
import io
import math
import platform
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch

from core.data.conditions import Conditions
from core.data.datamodule import ShardDataModule
from core.data.shards import TokenShards
from core.errors import UserError
from core.tokenizers.base import Tokenizer
from core.training.checkpoint import save_checkpoint
from core.training.condition_dropout import ConditionDropout
from core.training.fit import STEPS, fit
from core.training.model import GenerativeModel, build_model
from core.training.module import GenerativeModule
from domains.tasks import Task
from pipelines.compose import refuse_small
from pipelines.pairs import refuse_unread_sources, require_sources
from pipelines.run import Run


def train(config: Mapping[str, Any]) -> Path:
    """Train from the prepared folder `data.path`; returns the checkpoint's folder."""
    task = Task.of(config)
    prepared = Path(config["data"]["path"])
    saved = prepared / "tokenizer.json"
    if not saved.is_file():
        raise UserError(f"{prepared}: not a prepared folder, run `motif prepare` first")
    settings = config["trainer"]
    check_trainer(settings)
    tokenizer = task.make_tokenizer()
    digest = tokenizer.sha256(task.tokenizer["name"])
    data = ShardDataModule(
        prepared, settings["batch_tokens"], fill=tokenizer.vocabulary.pad, seed=config["seed"], tokenizer_sha256=digest
    )
    data.shards.require("train", "valid")
    learnt = data.shards.split("train")
    data.conditions = Conditions.fitted(learnt.columns, learnt.conditions) if learnt.columns else None
    if data.conditions is not None:
        config = {**config, "condition": data.conditions.config()}
    lightning.seed_everything(config["seed"], verbose=False)
    model = build_model(config, tokenizer.vocabulary)
    refuse_unread_sources(model, data.shards, prepared)
    require_sources(model, data.shards, tokenizer, prepared)
    model.process.fit(torch.as_tensor(learnt.lengths), learnt.condition(data.conditions))
    model.process.fit_tokens(torch.as_tensor(learnt.token_counts(tokenizer.vocabulary.size)))
    drop = condition_dropout(config, data)
    run = Run("train", config)
    best, valid_nll = fit(module_of(model, settings, config["seed"], drop), data, settings, run.folder)
    text = saved.read_text(encoding="utf-8")
    # One file is the run's configuration and the checkpoint's.
    save_checkpoint(
        run.folder, {"verb": run.verb, **run.config}, best, text, card(run, best, prepared, valid_nll), config["half"]
    )
    write_reference(run.folder, data.shards, tokenizer)
    run.metrics(
        data={"name": prepared.name, "sha256": data.shards.sha256, "n": len(data.shards)},
        model={"name": config["process"]["name"], "parameters": best.parameter_count},
        values={"valid_nll": valid_nll},
    )
    # Kept until everything else is written, so that a stop never costs more than what came last.
    shutil.rmtree(run.folder / STEPS)
    return run.finish()


def check_trainer(settings: Mapping[str, Any]) -> None:
    """`UserError` for settings of a trainer that cannot work."""
    keys = [
        "steps",
        "batch_tokens",
        "validate_every",
        "save_every",
        *(["patience"] if settings["patience"] is not None else []),
    ]
    refuse_small(settings, dict.fromkeys(keys, 1), "trainer.")
    if settings["validate_every"] > settings["steps"]:
        raise UserError(f"trainer.validate_every is above trainer.steps={settings['steps']}: no weights would be kept")
    if settings["accelerator"] == "gpu" and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=gpu: this machine has no GPU that torch can use, pass trainer=cpu")


def condition_dropout(config: Mapping[str, Any], data: ShardDataModule) -> ConditionDropout | None:
    """What takes the condition from training sequences, where they have one."""
    return None if data.conditions is None else ConditionDropout(data.conditions, config["condition_dropout"])


def module_of(
    model: GenerativeModel, settings: Mapping[str, Any], seed: int, drop: ConditionDropout | None
) -> GenerativeModule:
    """The model as Lightning trains it under a trainer's settings."""
    rates = settings["learning_rate"], settings["weight_decay"], settings["warmup_steps"]
    return GenerativeModule(model, *rates, settings["steps"], seed, drop=drop)


def write_reference(folder: Path, shards: TokenShards, tokenizer: Tokenizer[Any], earlier: Sequence[str] = ()) -> None:
    """The real sequences beside the checkpoint: what novelty and distances are measured against.

    Those of a class have it in a third column. earlier: what its parent was trained on.
    """
    place = next((k for k, column in enumerate(shards.columns) if column.labels), None)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["split", "sequence"] + ["class"] * (place is not None))
    for split in ("train", "test"):
        part = shards.split(split)
        for row in range(len(part)):
            cells = [split, tokenizer.decode(part[row].tolist())]
            if place is not None:
                value = part.conditions[row, place]
                cells.append("" if math.isnan(value) else shards.columns[place].labels[int(value)])
            writer.writerow(cells)
    writer.writerows(["train", sequence] + [""] * (place is not None) for sequence in earlier)
    with gzip.GzipFile(folder / "reference.csv.gz", "wb", mtime=0) as stream:
        stream.write(text.getvalue().encode())


def card(run: Run, model: GenerativeModel, prepared: Path, valid_nll: float, more: Sequence[str] = ()) -> str:
    """What the weights are, how they came about, what `more` there is to say, and the card of the data they saw."""
    settings = run.config["trainer"]
    device = torch.cuda.get_device_name() if settings["accelerator"] == "gpu" else f"{platform.machine()} CPU"
    kind = model.process.likelihood_kind
    most = "" if settings["patience"] is None else "at most "
    lines = [
        f"# {run.config['task']['name']}: {run.config['process']['name']}",
        "",
        f"- command: `{run.command}`",
        f"- parameters: {model.parameter_count}, stored in {16 if run.config['half'] else 32} bits",
        f"- training: {most}{settings['steps']} steps in {run.seconds / 60:.1f} minutes, {settings['precision']}, "
        f"{device}, torch {torch.__version__}, seed {run.config['seed']}",
        f"- validation NLL with end token and length: {valid_nll:.4f} nats a token ({kind})",
        *(f"- {line}" for line in more),
    ]
    described = prepared / "card.md"
    if described.is_file():
        lines += ["", "#" + described.read_text(encoding="utf-8").strip()]
    return "\n".join(lines) + "\n"

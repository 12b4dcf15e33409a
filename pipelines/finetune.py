"""`motif finetune`: a checkpoint and a user's sequences -> a checkpoint of them, compared on held-out ones."""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from core.data.datamodule import ShardDataModule
from core.errors import UserError
from core.evaluation.bootstrap import bootstrap_ratio
from core.processes.base import Likelihood
from core.registry import is_file_reference
from core.training.checkpoint import save_checkpoint
from core.training.fit import STEPS, fit
from core.training.lora import add_adapters, merge_adapters
from core.training.model import GenerativeModel
from domains.base import named, shown
from domains.tasks import Task
from pipelines.compose import refuse_small
from pipelines.data_sets import Part
from pipelines.evaluate import likelihood_of
from pipelines.load import Loaded, configured
from pipelines.pairs import refuse_unread_sources, require_sources
from pipelines.prepare import gather
from pipelines.present import model_of, read_reference
from pipelines.reading import read_parts
from pipelines.run import Run, file_hash
from pipelines.train import card, check_trainer, condition_dropout, module_of, write_reference

# Where the prepared form of `input` lies in the new checkpoint's folder.
_DATA = "data"


def finetune(config: Mapping[str, Any]) -> Path:
    """Adapt a checkpoint to `input` or to the prepared folder `data.path`; returns the new checkpoint's folder."""
    task = Task.of(config)
    refuse_small(config, {"points": 2})
    if not (isinstance(config["held_out"], float) and 0 < config["held_out"] < 0.5):
        raise UserError(f"held_out={config['held_out']}: a share between 0 and 0.5 is needed")
    settings = _settings(config)
    parent = _parent(config, task, settings["accelerator"])
    with _prepared(config, task, parent) as prepared:
        return _finetuned(config, settings, parent, prepared)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's settings, the learning rate of the adaptation where they name none."""
    adapt, settings = config["adapt"], dict(config["trainer"])
    if adapt["name"] == "lora":
        refuse_small(adapt, {"rank": 1}, "adapt.")
    if settings["learning_rate"] is None:
        settings["learning_rate"] = adapt["learning_rate"]
    check_trainer(settings)
    return settings


def _parent(config: Mapping[str, Any], task: Task, accelerator: str) -> Loaded:
    # The configuration of a run that is repeated holds the parent's process, which only a file must name.
    trusted = {
        group: config[group]
        for group in ("process", "mixer")
        if config.get(group) and is_file_reference(config[group]["name"])
    }
    return configured({"checkpoint": config["checkpoint"], "accelerator": accelerator, **trusted}, task)


@contextmanager
def _prepared(config: Mapping[str, Any], task: Task, parent: Loaded) -> Iterator[Path]:
    """The folder `data.path`, or `input` prepared for the while by the checkpoint's tokenizer, clusters held out."""
    if not config["input"]:
        if not config["data"]["path"]:
            raise UserError("finetune needs input= (a file of sequences) or data.path= (a prepared folder)")
        yield Path(config["data"]["path"])
        return
    if config["data"]["path"]:
        raise UserError("finetune takes input= or data.path=, not both")
    if config["reader"] and is_file_reference(config["reader"]):
        # A checkpoint's configuration names no file of code.
        raise UserError(f"reader={config['reader']}: run `motif prepare` with it, then pass data.path=")
    parts, limit = [Part(Path(config["input"]), config["reader"])], parent.model.process.limit
    report = read_parts(task, parts, config)
    for record in report.records:
        length = len(parent.tokenizer.encode(record.value))
        if length > limit:
            raise UserError(
                f"{named(record.file)}: record {shown(record.name)}: {length} tokens, above the checkpoint's limit of "
                f"{limit}: pass max_length={limit} to leave such records out"
            )
    gathered = gather(task, config, report, parent.tokenizer, config["held_out"])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / _DATA
        gathered.write(folder, parent.tokenizer, parent.task.tokenizer["name"])
        (folder / "card.md").write_text(gathered.card(parts[0].file.name, parts), encoding="utf-8")
        yield folder


def _finetuned(config: Mapping[str, Any], settings: Mapping[str, Any], parent: Loaded, prepared: Path) -> Path:
    data = _opened(config, settings, parent, prepared)
    # What the new checkpoint is built from stands in the run's configuration from the first moment on.
    built = {key: parent.config[key] for key in ("process", "model", "condition") if key in parent.config}
    run = Run("finetune", {**config, **copy.deepcopy(built)})
    if config["input"]:
        shutil.copytree(prepared, run.folder / _DATA, dirs_exist_ok=True)
    held = data.shards.split("test")
    before = likelihood_of(parent, held, config["points"], config["seed"])
    best, valid_nll = _adapted(config, settings, parent, data, run.folder)
    after = likelihood_of(replace(parent, model=best), held, config["points"], config["seed"])
    values = {"valid_nll": valid_nll, **compared(before, after, config["seed"])}
    text = (prepared / "tokenizer.json").read_text(encoding="utf-8")
    about = card(run, best, prepared, valid_nll, _sentences(parent, values))
    save_checkpoint(run.folder, {"verb": run.verb, **run.config}, best, text, about, config["half"])
    # What the parent was trained on is no news either.
    write_reference(run.folder, data.shards, parent.tokenizer, read_reference(parent.folder).train)
    run.metrics(
        protocol="held_out_per_token_with_end",
        data={"name": Path(config["input"] or prepared).name, "sha256": data.shards.sha256, "n": len(data.shards)},
        model=model_of(parent),
        values=values,
        baselines={"parent": {"nll": values["nll"] - values["nll_change"]}},
    )
    shutil.rmtree(run.folder / STEPS)
    return run.finish()


def _opened(config: Mapping[str, Any], settings: Mapping[str, Any], parent: Loaded, prepared: Path) -> ShardDataModule:
    """The data, refused where the checkpoint cannot read them."""
    digest = parent.tokenizer.sha256(parent.task.tokenizer["name"])
    fill = parent.tokenizer.vocabulary.pad
    data = ShardDataModule(prepared, settings["batch_tokens"], fill=fill, seed=config["seed"], tokenizer_sha256=digest)
    data.shards.require("train", "valid", "test")
    parent.model.process.refuse_long(torch.as_tensor(data.shards.lengths))
    named_by = Path(config["input"] or prepared)
    refuse_unread_sources(parent.model, data.shards, named_by)
    require_sources(parent.model, data.shards, parent.tokenizer, named_by)
    if data.shards.columns:
        if parent.conditions is None:
            names = ", ".join(column.name for column in data.shards.columns)
            raise UserError(f"checkpoint {parent.folder}: it takes no condition, prepare the data without {names}")
        parent.conditions.matching(data.shards.columns, data.shards.conditions)
        data.conditions = parent.conditions
    return data


def _adapted(
    config: Mapping[str, Any], settings: Mapping[str, Any], parent: Loaded, data: ShardDataModule, folder: Path
) -> tuple[GenerativeModel, float]:
    """The best weights by validation NLL, adapters merged, and that NLL."""
    lightning.seed_everything(config["seed"], verbose=False)
    model = copy.deepcopy(parent.model).cpu()
    learnt = data.shards.split("train")
    model.process.fit(torch.as_tensor(learnt.lengths), learnt.condition(data.conditions))
    adapt = config["adapt"]
    if adapt["name"] == "lora":
        add_adapters(model, adapt["rank"], adapt["alpha"])
    drop = condition_dropout(config, data)
    best, valid_nll = fit(module_of(model, settings, config["seed"], drop), data, settings, folder)
    if adapt["name"] == "lora":
        merge_adapters(best)
    return best.to(parent.model.device), valid_nll


def compared(before: Likelihood, after: Likelihood, seed: int) -> dict[str, Any]:
    """NLL per token after, and its change with the 95 % bootstrap interval over sequences, which are paired."""
    tokens = after.tokens.numpy()
    change = bootstrap_ratio((after.nll - before.nll).numpy(), tokens, np.random.default_rng(seed))
    return {
        "likelihood": after.label,
        "nll": float(after.nll.sum() / after.tokens.sum()),
        "nll_change": change.estimate,
        "nll_change_low": change.low,
        "nll_change_high": change.high,
        "held_out_sequences": len(tokens),
        "held_out_tokens": int(tokens.sum()),
    }


def _sentences(parent: Loaded, values: Mapping[str, Any]) -> list[str]:
    """What the card says about the parent and the gain."""
    return [
        f"parent: {parent.folder.name}, sha256 of its weights {file_hash(parent.folder / 'model.safetensors')}",
        f"held-out sequences: {values['held_out_sequences']}, {values['held_out_tokens']} tokens with end tokens",
        f"held-out {values['likelihood']}: parent {values['nll'] - values['nll_change']:.4f}, this checkpoint "
        f"{values['nll']:.4f} nats a token; change {values['nll_change']:+.4f}, paired 95 % bootstrap interval "
        f"[{values['nll_change_low']:+.4f}, {values['nll_change_high']:+.4f}]",
    ]

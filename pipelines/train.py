"""`motif train`: prepared shards -> a checkpoint."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from core.data.datamodule import ShardDataModule
from core.data.shards import TokenShards
from core.errors import UserError
from core.tokenizers.base import Tokenizer
from core.training.checkpoint import save_checkpoint
from core.training.model import GenerativeModel, build_model
from core.training.module import GenerativeModule
from domains.tasks import Task
from pipelines.run import Run


def train(config: Mapping[str, Any]) -> Path:
    """Train from the prepared folder `data.path`; returns the checkpoint's folder."""
    task = Task.load(config["domain"], config["task"]["name"])
    prepared = Path(config["data"]["path"])
    saved = prepared / "tokenizer.json"
    if not saved.is_file():
        raise UserError(f"{prepared}: not a prepared folder, run `motif prepare` first")
    settings = config["trainer"]
    tokenizer = task.make_tokenizer()
    digest = hashlib.sha256(tokenizer.to_json(task.tokenizer["name"]).encode()).hexdigest()
    data = ShardDataModule(
        prepared, settings["batch_tokens"], fill=tokenizer.vocabulary.pad, seed=config["seed"], tokenizer_sha256=digest
    )
    lightning.seed_everything(config["seed"], verbose=False)
    model = build_model(config, tokenizer.vocabulary)
    model.process.fit(torch.as_tensor(data.shards.split("train").lengths))
    run = Run("train", config)
    module = GenerativeModule(
        model,
        settings["learning_rate"],
        settings["weight_decay"],
        settings["warmup_steps"],
        settings["steps"],
        config["seed"],
    )
    best, valid_nll = _fit(module, data, settings, run.folder)
    text = saved.read_text(encoding="utf-8")
    kept = {key: config[key] for key in ("domain", "task", "process", "model", "seed")}
    save_checkpoint(run.folder, kept, best, text, _card(config, best, data, valid_nll), config["half"])
    write_reference(run.folder, data.shards, tokenizer)
    run.metrics(
        data={"name": prepared.name, "sha256": data.shards.sha256, "n": len(data.shards)},
        model={"name": config["process"]["name"], "parameters": best.parameter_count},
        values={"valid_nll": valid_nll},
    )
    return run.finish()


def _fit(
    module: GenerativeModule, data: ShardDataModule, settings: Mapping[str, Any], folder: Path
) -> tuple[GenerativeModel, float]:
    """Run Lightning, resuming where an earlier call stopped; the averaged weights with the best NLL, and it."""
    keeper = ModelCheckpoint(
        folder / "steps", monitor="valid_nll", save_top_k=1, save_last=True, enable_version_counter=False
    )
    trainer = lightning.Trainer(
        accelerator=settings["accelerator"],
        devices=1,
        precision=settings["precision"],
        max_steps=settings["steps"],
        val_check_interval=settings["validate_every"],
        check_val_every_n_epoch=None,
        gradient_clip_val=settings["clip"],
        callbacks=[keeper, EMAWeightAveraging(decay=settings["ema"])],
        logger=False,
        enable_model_summary=False,
    )
    if settings["compile"]:
        module.model.network.backbone.compile()
    last = folder / "steps" / "last.ckpt"
    trainer.fit(module, data, ckpt_path=str(last) if last.is_file() else None)
    # Lightning's own checkpoint holds its tensors under the averaged weights.
    state = torch.load(keeper.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "model."
    best = module.model.to("cpu")
    best.load_state_dict({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})
    for file in (folder / "steps").glob("*.ckpt"):
        file.unlink()
    (folder / "steps").rmdir()
    assert keeper.best_model_score is not None
    return best.eval(), float(keeper.best_model_score)


def write_reference(folder: Path, shards: TokenShards, tokenizer: Tokenizer[Any]) -> None:
    """The real sequences beside the checkpoint: what novelty and distances are measured against."""
    with gzip.GzipFile(folder / "reference.csv.gz", "wb", mtime=0) as stream:
        stream.write(b"split,sequence\n")
        for split in ("train", "test"):
            for row in shards.split(split):
                stream.write(f"{split},{tokenizer.decode(row.tolist())}\n".encode())


def _card(config: Mapping[str, Any], model: GenerativeModel, data: ShardDataModule, valid_nll: float) -> str:
    return "\n".join(
        [
            f"# {config['task']['name']}: {config['process']['name']}",
            "",
            f"- data: sha256 {data.shards.sha256}, {json.dumps(dict(data.shards.counts))}",
            f"- parameters: {model.parameter_count}",
            f"- seed: {config['seed']}",
            f"- validation NLL, nats a token with its end ({model.process.likelihood_kind}): {valid_nll:.4f}",
            "",
        ]
    )

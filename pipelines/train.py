"""`motif train`: prepared shards -> a checkpoint."""

from __future__ import annotations

import gzip
import platform
import shutil
import signal
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
from pipelines.compose import refuse_small
from pipelines.run import Run


def train(config: Mapping[str, Any]) -> Path:
    """Train from the prepared folder `data.path`; returns the checkpoint's folder."""
    task = Task.of(config)
    prepared = Path(config["data"]["path"])
    saved = prepared / "tokenizer.json"
    if not saved.is_file():
        raise UserError(f"{prepared}: not a prepared folder, run `motif prepare` first")
    settings = config["trainer"]
    _check(settings)
    tokenizer = task.make_tokenizer()
    digest = tokenizer.sha256(task.tokenizer["name"])
    data = ShardDataModule(
        prepared, settings["batch_tokens"], fill=tokenizer.vocabulary.pad, seed=config["seed"], tokenizer_sha256=digest
    )
    data.shards.require("train", "valid")
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
    # One file is the run's configuration and the checkpoint's.
    save_checkpoint(
        run.folder, {"verb": run.verb, **run.config}, best, text, _card(run, best, prepared, valid_nll), config["half"]
    )
    write_reference(run.folder, data.shards, tokenizer)
    run.metrics(
        data={"name": prepared.name, "sha256": data.shards.sha256, "n": len(data.shards)},
        model={"name": config["process"]["name"], "parameters": best.parameter_count},
        values={"valid_nll": valid_nll},
    )
    # Kept until everything else is written, so that a stop never costs more than what came last.
    shutil.rmtree(run.folder / "steps")
    return run.finish()


def _check(settings: Mapping[str, Any]) -> None:
    refuse_small(settings, dict.fromkeys(("steps", "batch_tokens", "validate_every", "save_every"), 1), "trainer.")
    if settings["validate_every"] > settings["steps"]:
        raise UserError(f"trainer.validate_every is above trainer.steps={settings['steps']}: no weights would be kept")
    if settings["accelerator"] == "gpu" and not torch.cuda.is_available():
        raise UserError("trainer.accelerator=gpu: this machine has no GPU that torch can use, pass trainer=cpu")


def _fit(
    module: GenerativeModule, data: ShardDataModule, settings: Mapping[str, Any], folder: Path
) -> tuple[GenerativeModel, float]:
    """Run Lightning, resuming where an earlier call stopped; the averaged weights with the best NLL, and it."""
    steps = folder / "steps"
    keeper = ModelCheckpoint(steps, monitor="valid_nll", save_top_k=1, enable_version_counter=False)
    # Beside the best weights, whatever was last: an interrupted call goes on from there. Not saved at the moment of
    # the stop, when a batch may be read and not yet learnt from.
    latest = ModelCheckpoint(steps, "last", every_n_train_steps=settings["save_every"], enable_version_counter=False)
    trainer = lightning.Trainer(
        accelerator=settings["accelerator"],
        devices=1,
        precision=settings["precision"],
        max_steps=settings["steps"],
        val_check_interval=settings["validate_every"],
        check_val_every_n_epoch=None,
        gradient_clip_val=settings["clip"],
        callbacks=[keeper, latest, EMAWeightAveraging(decay=settings["ema"])],
        logger=False,
        enable_model_summary=False,
    )
    if settings["compile"]:
        module.model.network.backbone.compile()
    last, interrupt = steps / "last.ckpt", signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, data, ckpt_path=str(last) if last.is_file() else None)
    except SystemExit as stop:
        # Lightning turns Ctrl-C into an exit of its own and leaves it switched off.
        signal.signal(signal.SIGINT, interrupt)
        raise KeyboardInterrupt from stop
    # Lightning's own checkpoint holds its tensors under the averaged weights.
    state = torch.load(keeper.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
    prefix = "model."
    best = module.model.to("cpu")
    best.load_state_dict({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})
    assert keeper.best_model_score is not None
    return best.eval(), float(keeper.best_model_score)


def write_reference(folder: Path, shards: TokenShards, tokenizer: Tokenizer[Any]) -> None:
    """The real sequences beside the checkpoint: what novelty and distances are measured against."""
    with gzip.GzipFile(folder / "reference.csv.gz", "wb", mtime=0) as stream:
        stream.write(b"split,sequence\n")
        for split in ("train", "test"):
            for row in shards.split(split):
                stream.write(f"{split},{tokenizer.decode(row.tolist())}\n".encode())


def _card(run: Run, model: GenerativeModel, prepared: Path, valid_nll: float) -> str:
    """What the weights are, how they came about, and the card of the data they saw."""
    settings = run.config["trainer"]
    device = torch.cuda.get_device_name() if settings["accelerator"] == "gpu" else f"{platform.machine()} CPU"
    kind = model.process.likelihood_kind
    lines = [
        f"# {run.config['task']['name']}: {run.config['process']['name']}",
        "",
        f"- command: `{run.command}`",
        f"- parameters: {model.parameter_count}, stored in {16 if run.config['half'] else 32} bits",
        f"- training: {settings['steps']} steps in {run.seconds / 60:.1f} minutes, {settings['precision']}, {device}, "
        f"torch {torch.__version__}, seed {run.config['seed']}",
        f"- validation NLL with end token and length: {valid_nll:.4f} nats a token ({kind})",
    ]
    card = prepared / "card.md"
    if card.is_file():
        lines += ["", "#" + card.read_text(encoding="utf-8").strip()]
    return "\n".join(lines) + "\n"

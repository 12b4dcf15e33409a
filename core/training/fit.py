"""One run of Lightning: resumed where an earlier call stopped, ended early where validation no longer improves."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, ModelCheckpoint

from core.data.datamodule import ShardDataModule
from core.training.model import GenerativeModel
from core.training.module import GenerativeModule

_MONITOR = "valid_nll"
# Where Lightning's own checkpoints lie in a run's folder until the run is complete.
STEPS = "steps"


def fit(
    module: GenerativeModule, data: ShardDataModule, settings: Mapping[str, Any], folder: Path
) -> tuple[GenerativeModel, float]:
    """Train in `folder`; the averaged weights with the best validation NLL, on the CPU, and that NLL."""
    steps = folder / STEPS
    keeper = ModelCheckpoint(steps, monitor=_MONITOR, save_top_k=1, enable_version_counter=False)
    # Beside the best weights, whatever was last: an interrupted call goes on from there. Not saved at the moment of
    # the stop, when a batch may be read and not yet learnt from.
    latest = ModelCheckpoint(steps, "last", every_n_train_steps=settings["save_every"], enable_version_counter=False)
    callbacks: list[Callback] = [keeper, latest, EMAWeightAveraging(decay=settings["ema"])]
    if settings["patience"] is not None:
        callbacks.append(EarlyStopping(_MONITOR, patience=settings["patience"]))
    trainer = lightning.Trainer(
        accelerator=settings["accelerator"],
        devices=1,
        precision=settings["precision"],
        max_steps=settings["steps"],
        val_check_interval=settings["validate_every"],
        check_val_every_n_epoch=None,
        gradient_clip_val=settings["clip"],
        callbacks=callbacks,
        logger=False,
        enable_model_summary=False,
        # The likelihood of numbers takes gradients.
        inference_mode=False,
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

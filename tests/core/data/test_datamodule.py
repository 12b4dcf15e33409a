"""The datamodule under Lightning's own trainer: a run cut short sees what an uninterrupted one sees."""

import warnings
from pathlib import Path

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from core.data.datamodule import ShardDataModule
from core.data.sequence_batch import SequenceBatch
from core.data.shards import TokenShards


class Recorder(lightning.LightningModule):
    """Notes which sequences each step saw."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[tuple[int, ...]] = []

    def training_step(self, batch: SequenceBatch, index: int) -> torch.Tensor:
        self.seen.append(tuple(batch.tokens[:, 0].tolist()))
        return self.weight * 1.0

    def validation_step(self, batch: SequenceBatch, index: int) -> None:
        assert batch.layout.count

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _trainer(root: Path, **options: object) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=root,
        max_epochs=3,
        **options,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("stop", [2, 5, 7, 12])
def test_interrupted_equals_uninterrupted(tmp_path: Path, stop: int) -> None:
    TokenShards.write(tmp_path / "data", {"train": [[n] * 4 for n in range(40)], "valid": [[1]] * 3}, "a")

    def run(**options: object) -> Recorder:
        model = Recorder()
        resume = options.pop("ckpt_path", None)
        data = ShardDataModule(tmp_path / "data", 32, seed=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _trainer(tmp_path, **options).fit(model, data, ckpt_path=resume, weights_only=False)  # type: ignore[arg-type]
        return model

    keep = ModelCheckpoint(dirpath=tmp_path / str(stop), every_n_train_steps=stop, save_top_k=-1, filename="{step}")
    whole = run(callbacks=[keep])
    assert len(whole.seen) == 15
    assert all(sorted(sum(whole.seen[start : start + 5], ())) == list(range(40)) for start in (0, 5, 10))
    assert len({tuple(whole.seen[start : start + 5]) for start in (0, 5, 10)}) == 3
    resumed = run(ckpt_path=tmp_path / str(stop) / f"step={stop}.ckpt", enable_checkpointing=False)
    assert resumed.seen == whole.seen[stop:]

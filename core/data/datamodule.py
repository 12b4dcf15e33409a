"""Token shards as Lightning wants them."""

from __future__ import annotations

from pathlib import Path

from lightning import LightningDataModule

from core.data.batch_loader import BatchLoader
from core.data.conditions import Conditions
from core.data.shards import TokenShards


class ShardDataModule(LightningDataModule):
    """Batches of the splits `train`, `valid` and `test` of one folder of token shards.

    Training batches are drawn afresh from (seed, epoch), the others never change. Ranks share
    each epoch's batches evenly. A checkpoint inside an epoch goes on with the next batch.

    folder: the shards. batch_tokens: budget with padding, for each rank. packed: one row
    without padding. fill: id in places without a token. tokenizer_sha256: refuse other shards.
    `conditions`, set once they are known, give batches their condition.
    """

    def __init__(
        self,
        folder: str | Path,
        batch_tokens: int,
        *,
        packed: bool = False,
        fill: int = 0,
        seed: int = 0,
        tokenizer_sha256: str | None = None,
    ) -> None:
        super().__init__()
        self.shards = TokenShards.open(folder, tokenizer_sha256)
        self.batch_tokens = batch_tokens
        self.packed, self.fill, self.seed = packed, fill, seed
        self.conditions: Conditions | None = None

    def train_dataloader(self) -> BatchLoader:
        return self._loader("train")

    def val_dataloader(self) -> BatchLoader:
        return self._loader("valid")

    def test_dataloader(self) -> BatchLoader:
        return self._loader("test")

    def _loader(self, split: str) -> BatchLoader:
        trainer = self.trainer
        return BatchLoader(
            self.shards.split(split),
            self.batch_tokens,
            packed=self.packed,
            fill=self.fill,
            seed=self.seed,
            epoch=self._epoch if split == "train" else int,
            rank=trainer.global_rank if trainer else 0,
            world=trainer.world_size if trainer else 1,
            conditions=self.conditions,
        )

    def _epoch(self) -> int:
        return self.trainer.current_epoch if self.trainer else 0

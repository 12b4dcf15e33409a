"""Training by Lightning: one module for every process and backbone."""

from __future__ import annotations

import math
from typing import Any

import lightning
import torch
from torch import Tensor

from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.training.condition_dropout import ConditionDropout
from core.training.model import GenerativeModel

_VALIDATION_SEED = 20_000


class GenerativeModule(lightning.LightningModule):
    """AdamW with warm-up and cosine decay on the process's own loss.

    Validation logs `valid_nll`: nats per token, end token and length included, exact or a bound
    as the process declares, always with the same noise, and given each sequence's condition. Weight
    decay spares vectors. drop: what takes the condition from some training sequences.
    """

    def __init__(
        self,
        model: GenerativeModel,
        learning_rate: float,
        weight_decay: float,
        warmup_steps: int,
        total_steps: int,
        seed: int,
        points: int = 16,
        drop: ConditionDropout | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.warmup_steps, self.total_steps = warmup_steps, total_steps
        self.seed, self.points, self.drop = seed, points, drop

    def training_step(self, batch: SequenceBatch, index: int) -> Tensor:
        # Every rank and step has ids of its own, so no two batches share noise.
        first = (self.global_step * self.trainer.world_size + self.global_rank) * 2**12
        ids = torch.arange(batch.layout.count, device=self.device) + first
        # Dropout too depends on the step alone, so that a resumed run repeats the uninterrupted one.
        torch.manual_seed((self.seed * 2**32 + first) % 2**63)
        noise = Noise.start(self.seed, ids)
        batch = batch if self.drop is None else self.drop(batch, noise)
        loss = self.model.process.loss(self.model.network, batch, noise).mean()
        self.log("train_loss", loss, prog_bar=True, batch_size=batch.layout.count)
        return loss

    def validation_step(self, batch: SequenceBatch, index: int) -> None:
        ids = torch.arange(batch.layout.count, device=self.device) + index * 2**12
        noise = Noise.start(_VALIDATION_SEED, ids)
        result = self.model.process.likelihood(self.model.network, batch, noise, self.points)
        tokens = result.tokens.sum()
        self.log("valid_nll", result.nll.sum() / tokens, prog_bar=True, batch_size=int(tokens), sync_dist=True)

    def configure_optimizers(self) -> Any:
        matrices = [p for p in self.model.parameters() if p.requires_grad and p.dim() > 1]
        vectors = [p for p in self.model.parameters() if p.requires_grad and p.dim() <= 1]
        groups = [{"params": matrices, "weight_decay": self.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=self.learning_rate, betas=(0.9, 0.98))
        # A plain function, so that a checkpoint holds no part of this object.
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self._rate(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        share = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

"""Training without the condition now and then, so that one model is conditional and not."""

from __future__ import annotations

from dataclasses import dataclass, replace

from core.data.conditions import Conditions
from core.data.noise import Noise
from core.data.sequence_batch import SequenceBatch
from core.errors import UserError


@dataclass(frozen=True)
class ConditionDropout:
    """Takes the condition from `share` of the sequences of a batch (Ho & Salimans 2022, arXiv 2207.12598)."""

    conditions: Conditions
    share: float

    def __post_init__(self) -> None:
        if isinstance(self.share, bool) or not (isinstance(self.share, (int, float)) and 0 <= self.share <= 1):
            raise UserError(f"condition_dropout={self.share}: a share lies in 0..1")

    def __call__(self, batch: SequenceBatch, noise: Noise) -> SequenceBatch:
        if batch.condition is None:
            return batch
        return replace(batch, condition=self.conditions.dropped(batch.condition, noise, self.share))

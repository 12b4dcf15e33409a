"""How long sequences are: learnt from data for each class, restricted when asked."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from core.data.conditions import Conditions
from core.data.noise import Noise, Purpose, draw
from core.errors import UserError

# A class's own lengths weigh as many as it has sequences, those of all together as this many.
_ALL = 5.0


class LengthPrior(nn.Module):
    """A smoothed histogram of lengths, and one for each class where `conditions` has a class column.

    Counts are spread by a triangular kernel of half-width 2 and mixed with 1 % of a uniform
    law on 1..limit, so every length up to the limit keeps a finite log-probability. Before that
    1 %, a class of n training sequences has n / (n + 5) of its own histogram and 5 / (n + 5) of that
    over all sequences, which is the whole law of a class without any. A row without a class follows
    the law over all.
    """

    log_probability: Tensor
    class_log_probability: Tensor

    def __init__(self, limit: int, conditions: Conditions | None = None) -> None:
        super().__init__()
        self.limit = limit
        uniform = self._uniform()
        self.register_buffer("log_probability", uniform.log())
        self.channels = None if conditions is None else conditions.class_channels
        if self.channels is not None:
            self.register_buffer("class_log_probability", uniform.log().repeat(len(self.channels), 1))

    def _uniform(self) -> Float[Tensor, " W"]:
        uniform = torch.full((self.limit + 1,), 1.0 / self.limit, dtype=torch.float64)
        uniform[0] = 0
        return uniform

    def fit(self, lengths: Int[Tensor, " N"], condition: Float[Tensor, "N C"] | None = None) -> None:
        """Learn from training lengths, none of them above the limit, and the condition of each sequence."""
        uniform, over_all = self._uniform(), self._spread(lengths)
        self.log_probability.copy_((0.99 * over_all / over_all.sum() + 0.01 * uniform).log())
        if self.channels is None:
            return
        classes = self._classes(len(lengths), condition)
        for number, law in enumerate(self.class_log_probability):
            own = lengths[classes == number]
            weight = len(own) / (len(own) + _ALL)
            mixed = (1 - weight) * over_all / over_all.sum()
            if len(own):
                spread = self._spread(own)
                mixed = mixed + weight * spread / spread.sum()
            law.copy_((0.99 * mixed + 0.01 * uniform).log())

    def _spread(self, lengths: Int[Tensor, " N"]) -> Float[Tensor, " W"]:
        """Smoothed counts."""
        counts = torch.bincount(lengths, minlength=self.limit + 1).double()
        kernel = torch.tensor([1.0, 2.0, 3.0, 2.0, 1.0], dtype=torch.float64)
        smooth = torch.nn.functional.conv1d(counts[None, None], kernel[None, None] / 9, padding=2)[0, 0]
        smooth[0] = 0
        return smooth

    def _table(self) -> Float[Tensor, "K W"]:
        """The law of each class, and last the one over all."""
        over_all = self.log_probability[None]
        return over_all if self.channels is None else torch.cat([self.class_log_probability, over_all])

    def _classes(self, count: int, condition: Float[Tensor, "N C"] | None) -> Int[Tensor, " N"]:
        """The row of the table that each sequence follows; -1, the last, where it has no class."""
        if self.channels is None or condition is None:
            return torch.full((count,), -1, device=self.log_probability.device)
        chosen = condition[:, self.channels.start : self.channels.stop] == 1
        return torch.where(chosen.any(1), chosen.int().argmax(1), -1)

    def nll(self, lengths: Int[Tensor, " N"], condition: Float[Tensor, "N C"] | None = None) -> Float[Tensor, " N"]:
        """-log p(length | class), nats; infinite above the limit."""
        inside = lengths <= self.limit
        value = -self._table()[self._classes(len(lengths), condition), torch.where(inside, lengths, 0)]
        return torch.where(inside, value, torch.inf)

    def draw(
        self, noise: Noise, allowed: tuple[int, ...], condition: Float[Tensor, "N C"] | None = None
    ) -> Int[Tensor, " N"]:
        """Lengths restricted to `allowed`, each by the law of its row."""
        table = self._table()
        index = torch.tensor([n for n in allowed if 0 < n <= self.limit], device=table.device, dtype=torch.long)
        if not len(index):
            raise UserError(f"no allowed length lies within the model's 1..{self.limit}")
        laws = torch.full_like(table, -torch.inf)
        laws[:, index] = table[:, index]
        uniform = noise.uniform(1, Purpose.LENGTH)[:, 0]
        return draw(laws[self._classes(len(uniform), condition)], uniform)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Written before classes had laws of their own: they all had the one over all.
        if self.channels is not None and f"{prefix}log_probability" in state_dict:
            whole = state_dict[f"{prefix}log_probability"]
            state_dict.setdefault(f"{prefix}class_log_probability", whole.repeat(len(self.channels), 1))
        super()._load_from_state_dict(state_dict, prefix, *rest)

"""How far appended sequences have walked through a set of constraints."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Int
from torch import Tensor

from core.backbones.state import State


@dataclass(frozen=True, eq=False)
class ConstraintState(State):
    """One automaton state for each length that the finished sequence may have, -1 once it may not.

    history: `[N, T, K]`, the states before each place; rolling back only moves the place.
    """

    history: Int[Tensor, "N T K"]

    @property
    def value(self) -> Int[Tensor, "N K"]:
        """The present states."""
        return self.history[torch.arange(len(self.position), device=self.position.device), self.position]

    def truncate(self, length: Int[Tensor, " N"]) -> ConstraintState:
        if bool(((length < 0) | (length > self.position)).any()):
            raise ValueError("a sequence is only rolled back to a length it had")
        return replace(self, position=length)

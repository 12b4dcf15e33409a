"""What a guide remembers of each sequence."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from core.data.noise import Noise


class Memory:
    """A few numbers for each sequence and slot, kept from step to step of a run.

    They are found by the sequence's id, whatever else stands in the batch, so that they outlast rows that
    leave it. A step 0 forgets those of its rows. A run that goes on at a later step, elsewhere, needs the
    memory beside the sequences: the sampler's `guiding.memories`.
    """

    def __init__(self) -> None:
        self._held: dict[tuple[int, int], tuple[float, ...]] = {}

    def recall(self, noise: Noise, first: Sequence[float]) -> Float[Tensor, "N D"]:
        """The numbers of each row of `noise`, `first` where none were kept; fp64."""
        held = [self._held.get(key, tuple(first)) for key in _keys(noise)]
        return torch.tensor(held, dtype=torch.float64, device=noise.sequences.device).reshape(-1, len(first))

    def keep(self, noise: Noise, values: Float[Tensor, "N D"]) -> None:
        """Remember one row of numbers for each row of `noise`."""
        self._held.update(zip(_keys(noise), map(tuple, values.tolist()), strict=True))

    def begin(self, noise: Noise) -> None:
        """Forget the rows that stand at step 0."""
        fresh = noise.select((noise.steps == 0).nonzero()[:, 0])
        for key in _keys(fresh):
            self._held.pop(key, None)

    def follow(self, noise: Noise, ancestors: Int[Tensor, " N"]) -> None:
        """Each row of `noise` goes on with what was kept for the row that `ancestors` names."""
        keys = _keys(noise)
        taken = {key: self._held.get(keys[row]) for key, row in zip(keys, ancestors.tolist(), strict=True)}
        for key, values in taken.items():
            self._held.pop(key, None)
            if values is not None:
                self._held[key] = values


def _keys(noise: Noise) -> list[tuple[int, int]]:
    return list(zip(noise.sequences.tolist(), noise.slots.tolist(), strict=True))

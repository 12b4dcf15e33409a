"""Where on a path a loss or a likelihood looks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from core.data.noise import Noise, Purpose


def evenly(noise: Noise) -> Float[Tensor, "N 1"]:
    """A number for each sequence; together they cover [0, 1) evenly, from a place drawn anew.

    Batches are ordered by length: a row that always had the same part of [0, 1) would tie what a
    sequence is shown to its length.
    """
    count = len(noise.sequences)
    strata = torch.arange(count, device=noise.sequences.device)[:, None] / max(count, 1)
    return (strata + noise.uniform(1, Purpose.TIME)[:1]).remainder(1.0)


def averaged(
    cost: Callable[[Float[Tensor, "N 1"], Noise], Float[Tensor, " N"]], noise: Noise, points: int
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """The mean of `cost` over [0, 1) for each sequence, and its standard error.

    Two independent halves of points // 2 numbers, one in each stratum; `cost` is told the numbers
    and a noise for them alone.
    """
    size, halves = points // 2, []
    for half in range(2):
        shift = noise.uniform(size, Purpose.TIME, lane=half)
        total = torch.zeros(len(shift), dtype=torch.float64, device=shift.device)
        for point in range(size):
            total += cost((point + shift[:, point : point + 1]) / size, noise.at(half * points + point + 1))
        halves.append(total / size)
    return (halves[0] + halves[1]) / 2, (halves[0] - halves[1]).abs() / 2

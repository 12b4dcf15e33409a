"""Straight paths from standard normal noise to independent normals, whose velocity is linear."""

from __future__ import annotations

import torch
from torch import Tensor

from core.data.layout import Layout
from core.data.noise import Noise, Purpose
from core.data.sequence_batch import SequenceBatch
from core.processes.base import Network
from core.processes.transitions.drift import Drift
from core.registry import Paper
from tests.laws.toys import ToyProcess

MEAN, SPREAD = 1.5, 0.5


class ToyDrift(ToyProcess):
    """x_t = (1 - t) normal + t data; steps add noise of variance diffusion (s - t), none at the end."""

    paper = Paper("ours", "toy")
    channels = 2

    def __init__(self, vocabulary, diffusion: float = 0.3, proposals: int = 1, location=0.0, unit=1.0) -> None:
        super().__init__(vocabulary)
        self.diffusion, self.proposals, self.location, self.unit = diffusion, proposals, location, unit

    def prior(self, lengths: Tensor, noise: Noise) -> SequenceBatch:
        width = int(lengths.max()) if len(lengths) else 0
        normal = torch.special.ndtri(noise.uniform(width * self.channels, Purpose.PRIOR) + 2.0**-54)
        layout = Layout.padded(lengths, width)
        points = normal.reshape(len(lengths), width, self.channels)
        return SequenceBatch(torch.where(layout.valid[..., None], points, 0.0), layout)

    def grid(self, steps: int) -> list[tuple[float, float]]:
        return [(i / steps, (i + 1) / steps) for i in range(steps)]

    def transition(self, network: Network, batch: SequenceBatch, t: float, s: float) -> Drift:
        velocity = network(batch, torch.full(batch.layout.shape, t, dtype=torch.float64))
        scale = 0.0 if s >= 1 else (self.diffusion * (s - t)) ** 0.5
        return Drift(velocity, t, s, scale, self.proposals, location=self.location, unit=self.unit)


def slope(t: float | Tensor) -> float | Tensor:
    """How the expected velocity grows with x_t."""
    return (t * SPREAD**2 - (1 - t)) / (t**2 * SPREAD**2 + (1 - t) ** 2)


def velocity(batch: SequenceBatch, time: Tensor | None) -> Tensor:
    """E[data - noise | x_t], for each place and channel."""
    assert time is not None
    t = time[..., None]
    return MEAN + slope(t) * (batch.tokens - t * MEAN)


def moments(process: ToyDrift, steps: int) -> tuple[float, float]:
    """Mean and variance of each number that `steps` steps give, without drawing."""
    mean, variance = 0.0, 1.0
    for t, s in process.grid(steps):
        rate = float(slope(t))
        mean += (s - t) * (MEAN + rate * (mean - t * MEAN))
        variance = variance * (1 + (s - t) * rate) ** 2 + (0.0 if s >= 1 else process.diffusion * (s - t))
    return mean, variance

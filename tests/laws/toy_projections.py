"""Rules on numbers with projections in closed form."""

from __future__ import annotations

from torch import Tensor

from core.guidance.constraints.base import Projection
from core.registry import Paper


class Box(Projection):
    """Every number between two."""

    paper = Paper("ours", "toy")

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    @property
    def name(self) -> str:
        return f"box:{self.low:g}..{self.high:g}"

    def project(self, clean: Tensor) -> Tensor:
        return clean.clamp(self.low, self.high)

    def check(self, value: Tensor) -> bool:
        return bool(((value > self.low - 1e-6) & (value < self.high + 1e-6)).all())


class Mean(Projection):
    """The numbers of a sequence average to one."""

    paper = Paper("ours", "toy")

    def __init__(self, mean: float) -> None:
        self.mean = mean

    @property
    def name(self) -> str:
        return f"mean:{self.mean:g}"

    def project(self, clean: Tensor) -> Tensor:
        return clean + (self.mean - clean.mean((1, 2), keepdim=True))

    def check(self, value: Tensor) -> bool:
        return abs(float(value.mean()) - self.mean) < 1e-6


class Ball(Projection):
    """The numbers of a sequence within a distance of the origin."""

    paper = Paper("ours", "toy")

    def __init__(self, radius: float) -> None:
        self.radius = radius

    @property
    def name(self) -> str:
        return f"ball:{self.radius:g}"

    def project(self, clean: Tensor) -> Tensor:
        norm = clean.flatten(1).norm(dim=1)[:, None, None]
        return clean * (self.radius / norm.clamp_min(1e-300)).clamp_max(1.0)

    def check(self, value: Tensor) -> bool:
        return float(value.norm()) < self.radius + 1e-6

"""kappa(t) = 1 - cos(pi t / 2)."""

import math

import torch

from core.processes.schedules.base import Schedule
from core.registry import Paper


class Cosine(Schedule):
    """kappa(t) = 1 - cos(pi t / 2): few sites move early, many late."""

    paper = Paper("S004", "Discrete Flow Matching", "2407.15595")

    def kappa(self, t):
        # 2 sin^2 keeps the digits that 1 - cos loses near 0.
        return 2 * torch.sin(math.pi * t / 4) ** 2

    def derivative(self, t):
        return math.pi / 2 * torch.sin(math.pi * t / 2)

    def inverse(self, kappa):
        return 4 / math.pi * torch.asin((kappa / 2).sqrt())

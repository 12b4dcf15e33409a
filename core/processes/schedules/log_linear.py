"""kappa(t) = t, the log-linear noise."""

import torch

from core.processes.schedules.base import Schedule
from core.registry import Paper


class LogLinear(Schedule):
    """Total noise -log(t): the share of hidden sites falls linearly, as SEDD and MDLM train.

    The name is theirs. They stop at a small eps to keep the noise finite; the ends are exact here,
    so that sampling starts from noise alone, and what remains is kappa(t) = t.
    """

    paper = Paper("ours", "Score Entropy Discrete Diffusion", "2310.16834", "no eps: both ends of time are exact")

    def kappa(self, t):
        return t

    def derivative(self, t):
        return torch.ones_like(t)

    def inverse(self, kappa):
        return kappa

"""kappa(t) = t^n."""

from core.processes.schedules.base import Schedule
from core.registry import Paper


class Polynomial(Schedule):
    """kappa(t) = t^n; n = 1 is the linear schedule."""

    paper = Paper("S004", "Discrete Flow Matching", "2407.15595")

    def __init__(self, exponent: float = 1.0) -> None:
        if exponent <= 0:
            raise ValueError(f"the exponent must be positive, got {exponent}")
        self.exponent = exponent

    def kappa(self, t):
        return t**self.exponent

    def derivative(self, t):
        return self.exponent * t ** (self.exponent - 1)

    def inverse(self, kappa):
        return kappa ** (1 / self.exponent)

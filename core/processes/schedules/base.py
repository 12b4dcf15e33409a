"""The contract of every schedule kappa."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from core.registry import Paper


class Schedule(ABC):
    """How much of the data a mixture path shows at time t: kappa(0) = 0, kappa(1) = 1, increasing.

    All three functions are elementwise on t in [0, 1] and exact to rounding, so a network
    trained on one schedule serves any other at the time kappa_train.inverse(kappa_new(t)).
    """

    paper: ClassVar[Paper]

    @abstractmethod
    def kappa(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """The share of sites that already show data."""

    @abstractmethod
    def derivative(self, t: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """d kappa / dt."""

    @abstractmethod
    def inverse(self, kappa: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
        """The time at which the share is kappa."""

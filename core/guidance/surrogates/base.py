"""The contract of every surrogate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from core.registry import Paper


class Surrogate(ABC):
    """Learns expensive objectives from the sequences measured so far.

    `fit` starts afresh each time; `predict` gives mean and standard deviation `[N, M]` in
    the units of the scores, and NaN scores are left out of the fit.
    """

    paper: ClassVar[Paper]

    @abstractmethod
    def fit(self, sequences: Sequence[Any], scores: NDArray[np.float64]) -> None:
        """Learn scores `[N, M]`."""

    @abstractmethod
    def predict(self, sequences: Sequence[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation, `[N, M]` each."""

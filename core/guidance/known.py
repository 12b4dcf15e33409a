"""What is known of the utilities before a run."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike, NDArray

from core.errors import UserError
from core.guidance.pareto import ParetoArchive, scaled

Utilities = Float[np.ndarray, "N M"]


@dataclass(frozen=True, eq=False)
class Known:
    """Where utilities lie, and the best seen so far.

    low, high: of each objective, low below high; `low` is the reference point of hypervolumes. archive: what
    no other one seen dominates. It stays as it is while sequences are drawn, so that none depends on
    which others are drawn beside it.
    """

    low: Float[np.ndarray, " M"]
    high: Float[np.ndarray, " M"]
    archive: ParetoArchive

    @staticmethod
    def of(utilities: ArrayLike, items: Sequence[Hashable] | None = None) -> Known:
        """From utilities `[N, M]`, by default of nameless items; `UserError` where no row is free of NaN."""
        table = np.asarray(utilities, dtype=np.float64)
        table, names = np.atleast_2d(table), range(len(table)) if items is None else items
        whole: NDArray[np.bool_] = np.asarray(np.isfinite(table).all(axis=1))
        if not whole.any():
            raise UserError(
                f"none of {len(table)} first sequences has a value under every objective: "
                "drop one, or add constraints under which all of them are defined"
            )
        archive = ParetoArchive(table.shape[1])
        archive.add(table[whole], [name for name, keep in zip(names, whole, strict=True) if keep])
        low, high = table[whole].min(axis=0), table[whole].max(axis=0)
        return Known(low, np.where(high > low, high, low + 1.0), archive)

    def scaled(self, utilities: Utilities) -> Utilities:
        """In units in which `low` and `high` lie at 0 and 1."""
        return scaled(utilities, (self.low, self.high))

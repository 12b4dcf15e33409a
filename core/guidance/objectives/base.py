"""The contract of every objective."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from core.errors import UserError
from core.registry import Paper

Direction = Literal["max", "min", "near"]


class Objective(ABC):
    """A property of completed, decoded sequences that can be measured.

    `score` is batched, deterministic and does not depend on the batch; NaN marks a sequence outside
    `valid_range` or one that the property is not defined for, and such a sequence never
    enters an archive. A direction that must not be sought is `hazardous` and refused. `kind` is the
    tokenizer's where only its sequences can be measured. `data` names the data set that it reads when
    made, which raises `UserError` where that is missing.
    """

    paper: ClassVar[Paper]
    direction: ClassVar[Literal["max", "min"]]
    unit: ClassVar[str]
    source: ClassVar[str]
    hazardous: ClassVar[Literal["max", "min"] | None] = None
    kind: ClassVar[str | None] = None
    data: ClassVar[str | None] = None

    @abstractmethod
    def score(self, sequences: Sequence[Any]) -> NDArray[np.float64]:
        """One value a sequence, in `unit`."""


@runtime_checkable
class Differentiable(Protocol):
    """An objective with a gradient: what guides by first order need of it.

    `letters` are the columns of the gradient, in the written form of the tokenizer.
    """

    letters: Sequence[str]

    def gradient(self, sequences: Sequence[Any]) -> Float[np.ndarray, "N L V"]:
        """How the score grows with the one-hot letter at each place, 0 behind the end of the shorter ones."""
        ...


@dataclass(frozen=True)
class Target:
    """An objective as asked for: which way, how much it weighs, under which name.

    `near` asks for the value closest to `near`; utility is what is maximised in every case.
    """

    name: str
    objective: Objective
    direction: Direction
    near: float = math.nan
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.direction == self.objective.hazardous:
            raise UserError(f"objective {self.name}: seeking its {self.direction}imum is refused as hazardous")
        if not (self.weight > 0 and math.isfinite(self.weight)):
            raise UserError(f"objective {self.name}: a weight is a positive number, got {self.weight}")

    def utility(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores turned so that more is better; the weight is not applied."""
        if self.direction == "max":
            return scores
        return -scores if self.direction == "min" else -np.abs(scores - self.near)


class Scoreboard:
    """Asks every objective once for each distinct sequence, and counts.

    `calls` counts distinct sequences, under however many objectives, those of one `canonical` form as
    one; `evaluations` counts per objective. Each sequence is scored as it is read: what a property says
    of one strand it need not say of the other.
    """

    def __init__(self, targets: Sequence[Target], canonical: Callable[[Any], Hashable] | None = None) -> None:
        self.targets = tuple(targets)
        self._canonical = canonical
        self._known: dict[Any, NDArray[np.float64]] = {}
        self._called: set[Hashable] = set()
        self.evaluations = {target.name: 0 for target in targets}

    @property
    def calls(self) -> int:
        return len(self._called) if self.targets else 0

    def scored(self, first: int = 0) -> list[tuple[Any, list[float]]]:
        """The sequences that were asked for and their raw scores, in that order, from the `first`th on."""
        return [(sequence, row.tolist()) for sequence, row in islice(self._known.items(), first, None)]

    def recall(self, sequences: Sequence[Any], scores: NDArray[np.float64]) -> None:
        """What an interrupted run has `scored`: it counts, and is not asked again."""
        fresh = {sequence: row for sequence, row in zip(sequences, scores, strict=True) if sequence not in self._known}
        self._keep(fresh)
        for name in self.evaluations:
            self.evaluations[name] += len(fresh)

    def _keep(self, fresh: Mapping[Any, NDArray[np.float64]]) -> None:
        self._known.update(fresh)
        self._called.update(fresh if self._canonical is None else map(self._canonical, fresh))

    def score(self, sequences: Sequence[Any]) -> NDArray[np.float64]:
        """Raw scores `[N, M]`, one column a target."""
        fresh = list(dict.fromkeys(s for s in sequences if s not in self._known))
        if fresh:
            columns = []
            for target in self.targets:
                column = np.asarray(target.objective.score(fresh), dtype=np.float64)
                if column.shape != (len(fresh),):
                    raise UserError(f"objective {target.name} returned shape {column.shape} for {len(fresh)} sequences")
                self.evaluations[target.name] += len(fresh)
                columns.append(column)
            table = np.stack(columns, axis=1) if columns else np.zeros((len(fresh), 0))
            self._keep(dict(zip(fresh, table, strict=True)))
        return np.array([self._known[s] for s in sequences]).reshape(len(sequences), len(self.targets))

    def utility(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """`[N, M]` scores turned so that more is better in every column."""
        columns = [target.utility(scores[:, m]) for m, target in enumerate(self.targets)]
        return np.stack(columns, axis=1) if columns else scores

"""What a model is conditioned on: class labels and scalars, a column each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from core.data.noise import Noise, Purpose
from core.errors import UserError
from core.registry import did_you_mean

_CLASS = "class"


@dataclass(frozen=True)
class Column:
    """One condition column.

    labels: the classes in their order; empty for a scalar. mean, deviation, low, high: of a scalar's
    training values. Raw values are the label's number or the scalar itself, NaN where there is none.
    """

    name: str
    labels: tuple[str, ...] = ()
    mean: float = 0.0
    deviation: float = 1.0
    low: float = -math.inf
    high: float = math.inf

    @property
    def width(self) -> int:
        """Channels of the condition."""
        return len(self.labels) or 2

    def fitted(self, values: NDArray[np.float64]) -> Column:
        """This column with what training values tell. Raises `UserError` where they do not differ."""
        known = values[~np.isnan(values)]
        if self.labels:
            present = set(known.astype(int).tolist())
            absent = [label for number, label in enumerate(self.labels) if number not in present]
            if len(self.labels) < 2:
                raise UserError(
                    f"class column {self.name}: every sequence is {', '.join(self.labels)}, and a model cannot learn a "
                    "condition from one class: add sequences of another, or prepare without class:"
                )
            if absent:
                raise UserError(f"class column {self.name}: no training sequence is {absent[0]}, prepare more of them")
            return self
        if not len(known) or known.min() == known.max():
            raise UserError(f"scalar column {self.name}: its training values do not differ, prepare without it")
        return Column(self.name, (), *(float(f(known)) for f in (np.mean, np.std, np.min, np.max)))

    def encode(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Channels `[N, width]` of raw values `[N]`: one-hot, or the standardised value and 1; zeros where missing."""
        known = ~np.isnan(values)
        filled = np.where(known, values, 0.0)
        if self.labels:
            return np.eye(len(self.labels))[filled.astype(int)] * known[:, None]
        return np.stack([(filled - self.mean) / self.deviation, np.ones_like(filled)], 1) * known[:, None]

    def number(self, text: str) -> float:
        """The raw value of a written one."""
        if self.labels:
            if text not in self.labels:
                known = ", ".join(self.labels)
                raise UserError(f"condition {self.name}: no class {text!r} was trained, known are {known}")
            return float(self.labels.index(text))
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UserError(f"condition {self.name}: {text!r} is no number")
        return value


@dataclass(frozen=True)
class Conditions:
    """How a model reads its condition: the columns one after the other.

    A column without a value is zeros; a sequence without any is NaN, which the backbone reads as
    unconditional.
    """

    columns: tuple[Column, ...]

    @property
    def width(self) -> int:
        """Channels of the condition."""
        return sum(column.width for column in self.columns)

    @property
    def class_channels(self) -> range | None:
        """Where the one-hots of the class column lie; None where there is none."""
        place = next((k for k, column in enumerate(self.columns) if column.labels), None)
        if place is None:
            return None
        first = sum(column.width for column in self.columns[:place])
        return range(first, first + self.columns[place].width)

    @staticmethod
    def fitted(columns: Sequence[Column], values: Float[np.ndarray, "N K"]) -> Conditions:
        """The description learnt from the raw values of the training split."""
        return Conditions(tuple(c.fitted(np.asarray(values[:, k])) for k, c in enumerate(columns)))

    def matching(self, columns: Sequence[Column], values: Float[np.ndarray, "N K"]) -> Float[np.ndarray, "N J"]:
        """Raw values of other data in this description's columns and labels.

        Raises `UserError` for a column or a label that this description lacks; a column that the
        data lack is missing everywhere.
        """
        known = {column.name: k for k, column in enumerate(self.columns)}
        found = np.full((len(values), len(self.columns)), math.nan)
        for place, column in enumerate(columns):
            if column.name not in known:
                raise UserError(
                    f"the model has no condition {column.name!r}{did_you_mean(column.name, tuple(known))}: "
                    "prepare without it"
                )
            own = self.columns[known[column.name]]
            if bool(own.labels) != bool(column.labels):
                raise UserError(f"condition {column.name} is a class on one side and a scalar on the other")
            raw = np.asarray(values[:, place])
            if column.labels:
                numbers = np.array([own.number(label) for label in column.labels])
                raw = np.where(np.isnan(raw), math.nan, numbers[np.nan_to_num(raw).astype(int)])
            found[:, known[column.name]] = raw
        return found

    def encode(self, values: Float[np.ndarray, "N K"]) -> Float[Tensor, "N C"]:
        """The condition of raw values in this description's columns."""
        channels = [column.encode(np.asarray(values[:, k])) for k, column in enumerate(self.columns)]
        return _unconditional(torch.from_numpy(np.concatenate(channels, 1)).float())

    def ask(self, wanted: Mapping[str, str]) -> tuple[Float[Tensor, "1 C"], list[str]]:
        """The condition of written values by column, and the scalars outside what training saw.

        `class` names the class column too. What is not asked for is left open.
        """
        row = np.full((1, len(self.columns)), math.nan)
        outside = []
        named = {column.name: k for k, column in enumerate(self.columns)}
        for k in (k for k, column in enumerate(self.columns) if column.labels):
            named.setdefault(_CLASS, k)
        for name, text in wanted.items():
            if name not in named:
                raise UserError(f"condition {name}: the model was not trained on it{did_you_mean(name, tuple(named))}")
            column = self.columns[named[name]]
            value = column.number(text)
            if not column.labels and not column.low <= value <= column.high:
                outside.append(f"{name} {value:g} is outside the trained {column.low:g} to {column.high:g}")
            row[0, named[name]] = value
        return self.encode(row), outside

    def dropped(self, condition: Float[Tensor, "N C"], noise: Noise, share: float) -> Float[Tensor, "N C"]:
        """The whole condition taken from `share` of the sequences; of several columns, each alone too."""
        gone = noise.uniform(1 + len(self.columns), Purpose.CONDITION) < share
        if len(self.columns) > 1:
            widths = torch.tensor([column.width for column in self.columns], device=gone.device)
            alone = gone[:, 1:].repeat_interleave(widths, 1)
            condition = _unconditional(condition.masked_fill(alone & ~condition.isnan(), 0.0))
        return condition.masked_fill(gone[:, :1], math.nan)

    def config(self) -> list[dict[str, Any]]:
        """As plain data, for a checkpoint's configuration."""
        numbers = ("mean", "deviation", "low", "high")
        return [
            {"name": c.name, "labels": list(c.labels)}
            if c.labels
            else {"name": c.name, **{key: getattr(c, key) for key in numbers}}
            for c in self.columns
        ]

    @staticmethod
    def of(config: Any) -> Conditions | None:
        """From a checkpoint's plain data; None where there is none. Raises `UserError` for other content."""
        if config is None:
            return None
        try:
            columns = [Column(**{**entry, "labels": tuple(entry.get("labels", ()))}) for entry in config]
            assert columns and all(isinstance(text, str) for c in columns for text in (c.name, *c.labels))
            assert all(math.isfinite(c.mean) and 0 < c.deviation < math.inf for c in columns)
        except (TypeError, AttributeError, AssertionError) as error:
            raise UserError("condition of the configuration is not a list of class and scalar columns") from error
        return Conditions(tuple(columns))


def _unconditional(condition: Float[Tensor, "N C"]) -> Float[Tensor, "N C"]:
    """Rows of which nothing is known, as the backbone reads them."""
    return condition.masked_fill((condition == 0).all(-1, keepdim=True), math.nan)

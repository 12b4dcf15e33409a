"""The contracts that every domain's readers and metrics keep."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from core.guidance.constraints.base import Constraint
from core.registry import Paper
from core.tokenizers.base import Tokenizer

_NEGATIVE = re.compile(r"-\d*\.?\d+(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def shown(text: str, limit: int = 60) -> str:
    """Text of a user's file made fit for one line of a message: no control characters, not endless."""
    clean = "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."


def named(path: str | Path) -> str:
    """A path made fit for one line of a message, whole."""
    return shown(str(path), len(str(path)) * len(r"\U00000000"))


def guarded(text: str) -> str:
    """Text as a cell of a table that no spreadsheet reads as a formula; negative numbers stay as they are."""
    opens_a_formula = text.startswith(("=", "+", "-", "@", "\t", "\r")) and not _NEGATIVE.fullmatch(text)
    return "'" + text if opens_a_formula else text


@dataclass(frozen=True)
class Record:
    """One object of a user's file. `line` is where it begins, counted from 1; `fields` are kept as written.

    source: the object that it is made from, None where the file names none.
    """

    name: str
    value: Any
    fields: Mapping[str, str]
    file: str
    line: int
    source: Any = None


@dataclass(frozen=True)
class Skipped:
    """One record that was not read. `position` counts from 1 inside the record; None is all of it."""

    file: str
    record: str
    position: int | None
    reason: str

    def __str__(self) -> str:
        place = "" if self.position is None else f", position {self.position}"
        return f"{named(self.file)}: record {shown(self.record)}{place}: {self.reason}"


@dataclass(frozen=True)
class ReadReport:
    """What a file held: records read, records skipped, and what was found or done, in sentences.

    Every record of the file is in exactly one of `records` and `skipped`, and every change of
    its content is in `statements`.
    """

    records: tuple[Record, ...]
    skipped: tuple[Skipped, ...] = ()
    statements: tuple[str, ...] = ()


class Reader(ABC):
    """Reads one file format.

    Nothing is changed and nothing is dropped in silence: what a reader changes it states, what
    it drops it lists. A file of which nothing is left raises `UserError`.
    """

    paper: ClassVar[Paper]
    suffixes: ClassVar[tuple[str, ...]]

    @staticmethod
    @abstractmethod
    def recognises(head: str) -> bool:
        """Whether the beginning of a file's text is surely of this format."""

    @abstractmethod
    def read(self, path: str | Path) -> ReadReport:
        """The whole file."""


@dataclass(frozen=True)
class MetricContext:
    """What metrics may use beside samples and reference.

    constraints: the hard rules asked for. tokenizer: of the task, where the alphabet matters. label:
    the class that was asked for. classes: the training objects of every class, where they have any.
    """

    seed: int = 0
    constraints: Sequence[Constraint] = field(default=())
    tokenizer: Tokenizer[Any] | None = None
    label: str | None = None
    classes: Mapping[str, Sequence[Any]] = field(default_factory=dict)


class Metric(ABC):
    """A number, or a few that belong together, about a whole set of samples.

    Deterministic given `context.seed`. NaN marks what is not defined for these samples, such as
    the spread of a single one.
    """

    paper: ClassVar[Paper]

    @abstractmethod
    def compute(self, samples: Sequence[Any], reference: Sequence[Any], context: MetricContext) -> dict[str, float]:
        """Values by their name in `metrics.json`; `reference` are the training objects."""

"""Automata of one length, laid out by position, pruned and minimal."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from numpy import ndarray

from core.guidance.constraints.base import Automaton

_DEAD = -1
# Below this many codes a table of flags finds the distinct ones faster than sorting does.
_TABLE = 1 << 22


class TooManyStates(Exception):
    """An automaton outgrew its limit."""


@dataclass(frozen=True, eq=False)
class Layered:
    """States before each position, numbered from 0 in each layer; layer 0 holds the start alone.

    `classes[i][token]` is the class of a token at position i, `after[i][state, class]` the state
    in layer i + 1, or -1. From every state some accepted end is reached; the last layer is one
    accepting state, and no two states of a layer accept the same completions.
    """

    classes: tuple[Int[ndarray, " V"], ...]
    after: tuple[Int[ndarray, "_S _C"], ...]

    @property
    def length(self) -> int:
        return len(self.after)

    @property
    def widths(self) -> list[int]:
        """How many states each of the length + 1 layers holds."""
        return [*(len(table) for table in self.after), 1]

    @property
    def states(self) -> int:
        """How many states there are in all."""
        return sum(self.widths)

    @property
    def free(self) -> bool:
        """Whether every sequence is accepted."""
        return all(table.shape == (1, 1) for table in self.after)

    @staticmethod
    def anything(length: int, size: int) -> Layered:
        """Accepts every sequence of the length."""
        return Layered((np.zeros(size, np.int64),) * length, (np.zeros((1, 1), np.int32),) * length)

    @staticmethod
    def of(automaton: Automaton, length: int, size: int, limit: int) -> Layered | None:
        """The reachable and hopeful part of `automaton`; None if it accepts nothing."""
        kinds: Sequence[Hashable] = range(size) if automaton.kinds is None else automaton.kinds
        numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
        classes = np.array([numbers[kind] for kind in kinds], dtype=np.int64)
        examples = np.unique(classes, return_index=True)[1].tolist()
        states: list[Hashable] = [automaton.start()]
        total, tables = 1, []
        for position in range(length):
            following: dict[Hashable, int] = {}
            table = np.full((len(states), len(examples)), _DEAD, dtype=np.int64)
            for row, state in enumerate(states):
                for column, token in enumerate(examples):
                    reached = automaton.advance(state, position, token)
                    if reached is not None:
                        table[row, column] = following.setdefault(reached, len(following))
            tables.append(table)
            states = list(following)
            total += len(states)
            if total > limit:
                raise TooManyStates
        return _trimmed([classes] * length, tables, np.array([automaton.accepts(state) for state in states], bool))

    def intersect(self, other: Layered, limit: int) -> Layered | None:
        """What both accept; None if nothing."""
        here, there = np.zeros(1, np.int64), np.zeros(1, np.int64)
        total, classes, tables = 1, [], []
        widths = other.widths
        for position in range(self.length):
            ours, theirs = self.classes[position], other.classes[position]
            columns = int(theirs.max(initial=0)) + 1
            pairs, joint = np.unique(ours * columns + theirs, return_inverse=True)
            left = self.after[position][here][:, pairs // columns]
            right = other.after[position][there][:, pairs % columns]
            width = widths[position + 1]
            codes = np.where((left < 0) | (right < 0), _DEAD, left * width + right)
            found, table = _numbered(codes, self.widths[position + 1] * width)
            classes.append(joint)
            tables.append(table)
            here, there = np.divmod(found, width)
            total += len(found)
            if total > limit:
                raise TooManyStates
        return _trimmed(classes, tables, np.ones(len(here), bool))


def _numbered(codes: Int[ndarray, "S C"], bound: int) -> tuple[Int[ndarray, " D"], Int[ndarray, "S C"]]:
    """The distinct codes in order, and each code's place among them; -1 stays -1."""
    if bound > _TABLE:
        found = np.unique(codes)
        found = found[found >= 0]
        return found, np.where(codes < 0, _DEAD, np.searchsorted(found, codes))
    present = np.zeros(bound, bool)
    present[codes[codes >= 0]] = True
    # The slot behind the last code is where -1 looks.
    places = np.append(np.cumsum(present) - 1, _DEAD)
    return np.flatnonzero(present), places[codes]


def _trimmed(
    classes: Sequence[Int[ndarray, " V"]], tables: Sequence[Int[ndarray, "_S _C"]], accepting: Bool[ndarray, " S"]
) -> Layered | None:
    """Without hopeless states, equivalent states and equivalent tokens merged, from the end backwards."""
    if not accepting.any():
        return None
    # Again the last slot answers for -1.
    merged = np.append(np.where(accepting, 0, _DEAD), _DEAD)
    kept_classes, kept_tables = [], []
    for old_classes, old in zip(reversed(classes), reversed(tables), strict=True):
        table = merged[old]
        hopeful = (table >= 0).any(1)
        if not hopeful.any():
            return None
        rows, row_of = _distinct_rows(table[hopeful])
        columns, column_of = _distinct_rows(rows.T)
        kept_tables.append(np.ascontiguousarray(columns.T, dtype=np.int32))
        kept_classes.append(column_of[old_classes])
        merged = np.full(len(old) + 1, _DEAD, dtype=np.int64)
        merged[:-1][hopeful] = row_of
    return Layered(tuple(reversed(kept_classes)), tuple(reversed(kept_tables)))


def _distinct_rows(table: Int[ndarray, "S C"]) -> tuple[Int[ndarray, "D C"], Int[ndarray, " S"]]:
    """The distinct rows, and which of them each row is."""
    packed = np.ascontiguousarray(table.astype(np.int32))
    # Rows compared as byte strings: much faster than column by column, and as exact.
    keys = packed.view(f"V{packed.shape[1] * 4}")[:, 0]
    numbers: dict[bytes, int] = {}
    row_of = np.array([numbers.setdefault(key.tobytes(), len(numbers)) for key in keys], dtype=np.int64)
    first = np.unique(row_of, return_index=True)[1]
    return table[first], row_of

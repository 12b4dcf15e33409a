"""How much of DNA is G or C."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from core.errors import UserError
from core.guidance.constraints._parse import parse_integer, parse_range, token_ids, written
from core.guidance.constraints.base import Automaton, Constraint
from core.guidance.constraints.composition import Composition
from core.guidance.constraints.length import Length
from core.registry import Paper
from core.tokenizers.base import Tokenizer

_USAGE = "gc:0.4..0.6, gc:20:0.3..0.7 or gc:100:0.3..0.7:banded"
# States of an exact automaton for one length; other rules multiply them, and there is one a length.
_MOST = 50_000
# From here on every place of a band holds a whole number.
_LEAST_BAND = 3


class Gc(Constraint):
    """`gc:0.4..0.6`: G and C make up 40 to 60 % of the whole; `gc:20:0.4..0.6`: of every stretch of 20 bases.

    Whole numbers are percentages. Shorter sequences have no such stretch and are accepted. The exact
    rule for a window remembers the window, so wide ones are refused; `gc:100:0.3..0.7:banded` is a
    stricter rule that needs little: the count since the start of each block of 100 stays within a third
    of the range's half-width of the range's middle, which keeps every stretch of 100 inside the range.
    """

    paper = Paper("ours", "GC content, whole or in a window")
    kind = "dna"

    def __init__(self, *arguments: str) -> None:
        self._name = written("gc", arguments, _USAGE, most=3)
        if len(arguments) == 3 and arguments[2].strip() != "banded":
            raise UserError(f"constraint {self._name}: {arguments[2]!r} is not banded; write it as {_USAGE}")
        text = arguments[0] if len(arguments) == 1 else arguments[1]
        asked = parse_range(text, self._name)
        scale = 1 if asked.decimal else 100
        low = (asked.low or Fraction(0)) / scale
        high = Fraction(1) if asked.high is None else asked.high / scale
        if high > 1:
            raise UserError(f"constraint {self._name}: {text} is over 100 %; write {_USAGE}")
        self._window = None if len(arguments) == 1 else parse_integer(arguments[0], self._name, least=1)
        window = () if self._window is None else (f"w={self._window}",)
        self._exact = Composition("GC", f"{float(low):.10f}..{float(high):.10f}", *window)
        self._counts = math.ceil(low * (self._window or 0)), math.floor(high * (self._window or 0))
        self._limits: list[tuple[int, int]] = []
        if len(arguments) == 3:
            if self._counts[1] - self._counts[0] < _LEAST_BAND:
                raise UserError(
                    f"constraint {self._name}: a band needs {_LEAST_BAND} counts between the bounds, these are "
                    f"{self._counts[0]} and {self._counts[1]}; widen the range or the window"
                )
            self._limits = _band(self._window or 0, *self._counts)

    @property
    def name(self) -> str:
        return self._name

    def compile(self, tokenizer: Tokenizer[Any], length: int) -> Automaton | None:
        if self._window is None:
            return self._exact.compile(tokenizer, length)
        if self._window > length:
            # No stretch to obey, so nothing to remember.
            return Length("0..").compile(tokenizer, length)
        if self._limits:
            return _Band([letter in "GC" for letter in token_ids(tokenizer, self._name)], self._limits)
        low, high = self._counts
        words = sum(math.comb(self._window - 1, ones) for ones in range(max(0, low - 1), min(self._window, high + 1)))
        if words * length > _MOST:
            raise UserError(
                f"constraint {self._name}: a window has {words} fillings, too many to follow at length {length}; "
                f"narrow it, or write {self._name}:banded, a stricter rule"
            )
        return self._exact.compile(tokenizer, length)

    def check(self, value: str) -> bool:
        if not self._exact.check(value):
            return False
        window = len(self._limits)
        if not window or len(value) < window:
            return True
        blocks = [value[start : start + window] for start in range(0, len(value), window)]
        within = (
            low <= block[:size].count("G") + block[:size].count("C") <= high
            for block in blocks
            for size, (low, high) in zip(range(1, len(block) + 1), self._limits, strict=False)
        )
        return all(within)


def _band(window: int, low: int, high: int) -> list[tuple[int, int]]:
    """Smallest and largest count after 1, 2, ... `window` places of a block."""
    slope, slack = Fraction(low + high, 2 * window), Fraction(high - low, 6)
    return [(math.ceil(slope * n - slack), math.floor(slope * n + slack)) for n in range(1, window + 1)]


class _Band(Automaton):
    """The count since the last block began.

    A stretch from place o of one block to place o of the next holds the first block's total, less what
    stood before o there, plus what stands before o in the next: three counts, each off its line by a third.
    """

    def __init__(self, counted: list[bool], limits: list[tuple[int, int]]) -> None:
        self.kinds = self._counted = counted
        self._limits = limits

    def start(self) -> int:
        return 0

    def advance(self, state: int, position: int, token: int) -> int | None:
        place = position % len(self._limits)
        low, high = self._limits[place]
        after = (state if place else 0) + self._counted[token]
        return after if low <= after <= high else None

    def accepts(self, state: int) -> bool:
        return True

"""How many of some letters a sequence holds."""

from __future__ import annotations

import math
import re
from typing import Any

from core.errors import UserError
from core.guidance.constraints._parse import Range, known, parse_integer, parse_range, token_ids, written
from core.guidance.constraints.base import Automaton, Constraint
from core.registry import Paper
from core.tokenizers.base import Tokenizer


class Composition(Constraint):
    """`composition:KR:0.2..0.5`: K and R together make up a fifth to a half of the letters.

    With a decimal point the bounds are shares, without one they are counts. With a third
    argument `w=10` every stretch of ten letters obeys; shorter sequences have no such stretch
    and are accepted.
    """

    paper = Paper("ours", "Composition, whole or in a window")

    def __init__(self, *arguments: str) -> None:
        usage = "composition:KR:0.2..0.5 or composition:KR:1..3:w=10"
        self._name = written("composition", arguments, usage, least=2, most=3)
        self._letters = arguments[0].strip()
        self._range = parse_range(arguments[1], self._name)
        if self._range.decimal and max(self._range.low or 0, self._range.high or 0) > 1:
            raise UserError(f"constraint {self._name}: a share is at most 1.0; write counts without a decimal point")
        self._window: int | None = None
        if len(arguments) == 3:
            match = re.fullmatch(r"w=(.*)", arguments[2].strip())
            if match is None:
                raise UserError(f"constraint {self._name}: {arguments[2]!r} is not a window; write it as w=10")
            self._window = parse_integer(match.group(1), self._name, least=1)

    @property
    def name(self) -> str:
        return self._name

    def compile(self, tokenizer: Tokenizer[Any], length: int) -> Automaton | None:
        ids = token_ids(tokenizer, self._name)
        known(self._letters, ids, self._name)
        counted = [letter in self._letters for letter in ids]
        span = length if self._window is None else self._window
        low, high = _counts(self._range, span)
        if span <= length and low > high:
            return None
        if self._window is None:
            return _Count(counted, low, high)
        return _Window(counted, low, high, span)

    def check(self, value: str) -> bool:
        span = len(value) if self._window is None else self._window
        for first in range(len(value) - span + 1):
            part = value[first : first + span]
            found = sum(map(part.count, set(self._letters)))
            # Multiplied out, so that no rounding decides.
            unit = span if self._range.decimal else 1
            if self._range.low is not None and found < self._range.low * unit:
                return False
            if self._range.high is not None and found > self._range.high * unit:
                return False
        return True


def _counts(bounds: Range, span: int) -> tuple[int, int]:
    unit = span if bounds.decimal else 1
    low = 0 if bounds.low is None else math.ceil(bounds.low * unit)
    return low, span if bounds.high is None else min(span, math.floor(bounds.high * unit))


class _Count(Automaton):
    def __init__(self, counted: list[bool], low: int, high: int) -> None:
        self.kinds = self._counted = counted
        self._low = low
        self._high = high

    def start(self) -> int:
        return 0

    def advance(self, state: int, position: int, token: int) -> int | None:
        after = state + self._counted[token]
        return after if after <= self._high else None

    def accepts(self, state: int) -> bool:
        return self._low <= state


class _Window(Automaton):
    """The last `span` - 1 places as bits."""

    def __init__(self, counted: list[bool], low: int, high: int, span: int) -> None:
        self.kinds = self._counted = counted
        self._low = low
        self._high = high
        self._span = span

    def start(self) -> int:
        return 0

    def advance(self, state: int, position: int, token: int) -> int | None:
        seen = state << 1 | self._counted[token]
        if position + 1 >= self._span and not self._low <= seen.bit_count() <= self._high:
            return None
        return seen & ((1 << (self._span - 1)) - 1)

    def accepts(self, state: int) -> bool:
        return True

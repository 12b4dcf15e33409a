"""Sequences of certain lengths."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

from core.errors import UserError
from core.guidance.constraints._parse import parse_range, written
from core.guidance.constraints.base import Automaton, Constraint
from core.registry import Paper
from core.tokenizers.base import Tokenizer


class Length(Constraint):
    """`length:8..20`: a length inside the range."""

    paper = Paper("ours", "Length range")

    def __init__(self, *arguments: str) -> None:
        self._name = written("length", arguments, "length:8..20")
        self._range = parse_range(arguments[0], self._name)
        if self._range.decimal:
            raise UserError(f"constraint {self._name}: a length is an integer; write length:8..20")

    @property
    def name(self) -> str:
        return self._name

    def compile(self, tokenizer: Tokenizer[Any], length: int) -> Automaton | None:
        return _Anything(tokenizer.vocabulary.size) if self._range.holds(length) else None

    def check(self, value: Sized) -> bool:
        low, high = self._range.low, self._range.high
        return (low or 0) <= len(value) <= (len(value) if high is None else high)


class _Anything(Automaton):
    def __init__(self, size: int) -> None:
        self.kinds = [0] * size

    def start(self) -> int:
        return 0

    def advance(self, state: int, position: int, token: int) -> int:
        return 0

    def accepts(self, state: int) -> bool:
        return True

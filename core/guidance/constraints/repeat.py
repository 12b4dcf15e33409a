"""No long runs of one letter."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from core.guidance.constraints._parse import parse_integer, written
from core.guidance.constraints.base import Automaton, Constraint
from core.registry import Paper
from core.tokenizers.base import Tokenizer


class Repeat(Constraint):
    """`repeat:3`: at most three times the same letter in a row."""

    paper = Paper("ours", "Maximum repeat")

    def __init__(self, *arguments: str) -> None:
        self._name = written("repeat", arguments, "repeat:3")
        self._most = parse_integer(arguments[0], self._name, least=1)

    @property
    def name(self) -> str:
        return self._name

    def compile(self, tokenizer: Tokenizer[Any], length: int) -> Automaton:
        return _Run(self._most)

    def check(self, value: str) -> bool:
        return all(len(list(run)) <= self._most for _, run in groupby(value))


class _Run(Automaton):
    """The last token and how often it has stood there in a row."""

    def __init__(self, most: int) -> None:
        self._most = most

    def start(self) -> tuple[int, int]:
        return -1, 0

    def advance(self, state: tuple[int, int], position: int, token: int) -> tuple[int, int] | None:
        run = state[1] + 1 if token == state[0] else 1
        return (token, run) if run <= self._most else None

    def accepts(self, state: tuple[int, int]) -> bool:
        return True

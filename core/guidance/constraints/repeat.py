"""No long runs of one letter."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from core.guidance.constraints._parse import known, parse_integer, token_ids, written
from core.guidance.constraints.base import Automaton, Constraint
from core.registry import Paper
from core.tokenizers.base import Tokenizer


class Repeat(Constraint):
    """`repeat:3`: at most three times the same letter in a row; `repeat:3:GC`: of these letters only."""

    paper = Paper("ours", "Maximum repeat")

    def __init__(self, *arguments: str) -> None:
        self._name = written("repeat", arguments, "repeat:3 or repeat:3:GC", most=2)
        self._most = parse_integer(arguments[0], self._name, least=1)
        self._letters = arguments[1].strip() if len(arguments) == 2 else None

    @property
    def name(self) -> str:
        return self._name

    def compile(self, tokenizer: Tokenizer[Any], length: int) -> Automaton:
        if self._letters is None:
            return _Run(self._most)
        ids = token_ids(tokenizer, self._name)
        known(self._letters, ids, self._name)
        return _Run(self._most, [token if letter in self._letters else -1 for letter, token in ids.items()])

    def check(self, value: str) -> bool:
        runs = ((letter, len(list(run))) for letter, run in groupby(value))
        return all(n <= self._most or (self._letters is not None and letter not in self._letters) for letter, n in runs)


class _Run(Automaton):
    """The last token and how often it has stood there in a row; a kind of -1 may stand as often as it likes."""

    def __init__(self, most: int, kinds: Sequence[int] | None = None) -> None:
        self.kinds = kinds
        self._most = most

    def start(self) -> tuple[int, int]:
        return -1, 0

    def advance(self, state: tuple[int, int], position: int, token: int) -> tuple[int, int] | None:
        if self.kinds is not None and self.kinds[token] == -1:
            return -1, 0
        run = state[1] + 1 if token == state[0] else 1
        return (token, run) if run <= self._most else None

    def accepts(self, state: tuple[int, int]) -> bool:
        return True

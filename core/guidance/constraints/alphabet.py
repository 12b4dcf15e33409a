"""Sequences over some of the letters."""

from __future__ import annotations

from typing import Any

from core.guidance.constraints._parse import known, token_ids, written
from core.guidance.constraints.base import Automaton, Constraint
from core.registry import Paper
from core.tokenizers.base import Tokenizer


class Alphabet(Constraint):
    """`alphabet:ACDE`: no other letter than these."""

    paper = Paper("ours", "Restricted alphabet")

    def __init__(self, *arguments: str) -> None:
        self._name = written("alphabet", arguments, "alphabet:ACDE")
        self._letters = arguments[0].strip()

    @property
    def name(self) -> str:
        return self._name

    def compile(self, tokenizer: Tokenizer[Any], length: int) -> Automaton:
        ids = token_ids(tokenizer, self._name)
        known(self._letters, ids, self._name)
        return _Among([letter in self._letters for letter in ids])

    def check(self, value: str) -> bool:
        return not set(value) - set(self._letters)


class _Among(Automaton):
    def __init__(self, allowed: list[bool]) -> None:
        self.kinds = self._allowed = allowed

    def start(self) -> int:
        return 0

    def advance(self, state: int, position: int, token: int) -> int | None:
        return 0 if self._allowed[token] else None

    def accepts(self, state: int) -> bool:
        return True

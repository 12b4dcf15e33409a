"""Sequences close to a parent."""

from __future__ import annotations

from typing import Any

from core.guidance.constraints._parse import known, parse_integer, token_ids, written
from core.guidance.constraints.base import Automaton, Constraint
from core.registry import Paper
from core.tokenizers.base import Tokenizer


class Within(Constraint):
    """`within:3:SEQUENCE`: the parent's length, and at most three letters other than the parent's."""

    paper = Paper("ours", "Within k substitutions of a parent")

    def __init__(self, *arguments: str) -> None:
        self._name = written("within", arguments, "within:3:SEQUENCE", least=2, most=2)
        self._most = parse_integer(arguments[0], self._name, least=0)
        self._parent = arguments[1].strip()

    @property
    def name(self) -> str:
        return self._name

    def compile(self, tokenizer: Tokenizer[Any], length: int) -> Automaton | None:
        ids = token_ids(tokenizer, self._name)
        known(self._parent, ids, self._name)
        return _Changes([ids[letter] for letter in self._parent], self._most) if length == len(self._parent) else None

    def check(self, value: str) -> bool:
        if len(value) != len(self._parent):
            return False
        return sum(a != b for a, b in zip(value, self._parent, strict=True)) <= self._most


class _Changes(Automaton):
    def __init__(self, parent: list[int], most: int) -> None:
        self._parent = parent
        self._most = most

    def start(self) -> int:
        return 0

    def advance(self, state: int, position: int, token: int) -> int | None:
        after = state + (token != self._parent[position])
        return after if after <= self._most else None

    def accepts(self, state: int) -> bool:
        return True

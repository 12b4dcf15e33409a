"""Sequences that hold a motif."""

from __future__ import annotations

import copy
from typing import Any

from core.guidance.constraints._motif import Ambiguity, Motif, MotifAutomaton, ambiguity_of
from core.guidance.constraints._parse import written
from core.guidance.constraints.base import Constraint
from core.registry import Paper
from core.tokenizers.base import Tokenizer


class Contains(Constraint):
    """`contains:K-x(2)-C`: the motif stands somewhere."""

    paper = Paper("ours", "Must-contain motif in PROSITE form")

    def __init__(self, *arguments: str) -> None:
        self._name = written("contains", arguments, "contains:K-x(2)-C")
        self._motif = Motif.parse(arguments[0], self._name)
        self._ambiguity: Ambiguity = {}

    @property
    def name(self) -> str:
        return self._name

    def bind(self, tokenizer: Tokenizer[Any]) -> Contains:
        bound = copy.copy(self)
        bound._ambiguity = ambiguity_of(tokenizer)
        return bound

    def compile(self, tokenizer: Tokenizer[Any], length: int) -> MotifAutomaton:
        return self._motif.automaton(tokenizer, length, wanted=True)

    def check(self, value: str) -> bool:
        return self._motif.pattern(self._ambiguity).search(value) is not None

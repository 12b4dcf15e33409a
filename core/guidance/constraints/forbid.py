"""Sequences without a motif."""

from __future__ import annotations

import copy
from typing import Any

from core.guidance.constraints._motif import Ambiguity, Motif, MotifAutomaton, ambiguity_of
from core.guidance.constraints._parse import written
from core.guidance.constraints.base import Constraint
from core.registry import Paper
from core.tokenizers.base import Tokenizer


class Forbid(Constraint):
    """`forbid:N-{P}-[ST]`: the motif stands nowhere."""

    paper = Paper("ours", "Forbidden motif in PROSITE form")

    def __init__(self, *arguments: str) -> None:
        self._name = written("forbid", arguments, "forbid:N-{P}-[ST]")
        self._motif = Motif.parse(arguments[0], self._name)
        self._ambiguity: Ambiguity = {}

    @property
    def name(self) -> str:
        return self._name

    def bind(self, tokenizer: Tokenizer[Any]) -> Forbid:
        bound = copy.copy(self)
        bound._ambiguity = ambiguity_of(tokenizer)
        return bound

    def compile(self, tokenizer: Tokenizer[Any], length: int) -> MotifAutomaton:
        return self._motif.automaton(tokenizer, length, wanted=False)

    def check(self, value: str) -> bool:
        return self._motif.pattern(self._ambiguity).search(value) is None

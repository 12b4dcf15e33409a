"""No long runs of one base."""

from __future__ import annotations

from typing import Any

from core.guidance.constraints._parse import known, parse_integer, written
from core.guidance.constraints.base import Automaton, Constraint
from core.guidance.constraints.repeat import Repeat
from core.registry import Paper
from core.tokenizers.base import Tokenizer
from domains.bio.alphabet import BASES


class Homopolymer(Constraint):
    """`homopolymer:6`: at most six times the same base in a row; `homopolymer:4:GC`: of G and of C at most four."""

    paper = Paper("ours", "Maximum homopolymer")
    kind = "dna"

    def __init__(self, *arguments: str) -> None:
        self._name = written("homopolymer", arguments, "homopolymer:6 or homopolymer:4:GC", most=2)
        parse_integer(arguments[0], self._name, least=1)
        known("".join(arguments[1:]).strip(), dict.fromkeys(BASES, 0), self._name)
        self._repeat = Repeat(*arguments)

    @property
    def name(self) -> str:
        return self._name

    def compile(self, tokenizer: Tokenizer[Any], length: int) -> Automaton:
        return self._repeat.compile(tokenizer, length)

    def check(self, value: str) -> bool:
        return self._repeat.check(value)

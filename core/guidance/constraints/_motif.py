"""Motifs in PROSITE form: as an automaton over token ids, and as a regular expression."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import UserError
from core.guidance.constraints._parse import known, token_ids
from core.guidance.constraints.base import Automaton
from core.tokenizers.base import Tokenizer

_ELEMENT = re.compile(r"(\[[A-Za-z]+\]|\{[A-Za-z]+\}|[A-Za-z])(?:\((\d+)(?:,(\d+))?\))?", re.ASCII)
# One bit a place: longer motifs are slips of the pen, and would only slow the search down.
_LONGEST = 1000
_MATCHED = -1

Ambiguity = Mapping[str, Collection[str]]


@dataclass(frozen=True)
class Element:
    """`low` to `high` times a letter among `letters`, or outside them; `x` is outside none."""

    letters: str
    outside: bool
    low: int
    high: int


@dataclass(frozen=True)
class Motif:
    """A motif as read; the anchors `<` and `>` bind it to the ends of the sequence."""

    name: str
    elements: tuple[Element, ...]
    at_start: bool
    at_end: bool

    @staticmethod
    def parse(text: str, name: str) -> Motif:
        """Letters, `x`, `[ST]`, `{P}`, `A(3)`, `x(2,4)`, `<`, `>`, optional `-` between elements."""
        body = text.strip().removesuffix(".")
        at_start, at_end = body.startswith("<"), body.endswith(">")
        body = body[at_start : len(body) - at_end]
        elements, place = [], 0
        while place < len(body):
            match = _ELEMENT.match(body, place)
            if match is None:
                raise UserError(
                    f"constraint {name}: cannot read {body[place:]!r} in the motif; write it like N-{{P}}-[ST]"
                )
            elements.append(_element(match, name))
            place = match.end()
            if body[place : place + 1] == "-" and place + 1 < len(body):
                place += 1
        if not sum(element.low for element in elements):
            raise UserError(f"constraint {name}: the motif matches nothing at all; name at least one letter")
        if sum(element.high for element in elements) > _LONGEST:
            raise UserError(f"constraint {name}: the motif spans over {_LONGEST} letters; shorten it")
        return Motif(name, tuple(elements), at_start, at_end)

    def pattern(self, ambiguity: Ambiguity) -> re.Pattern[str]:
        """The motif for Python's own engine, to be searched for."""
        parts = [r"\A"] if self.at_start else []
        for element in self.elements:
            letters = re.escape("".join(_meaning(element.letters, ambiguity)))
            some = f"[{'^' if element.outside else ''}{letters}]" if letters else "."
            parts.append(f"{some}{{{element.low},{element.high}}}")
        return re.compile("".join(parts) + (r"\Z" if self.at_end else ""), re.DOTALL)

    def automaton(self, tokenizer: Tokenizer[Any], length: int, wanted: bool) -> MotifAutomaton:
        """Accepts the sequences of `length` tokens that hold the motif, or those that do not."""
        ids = token_ids(tokenizer, self.name)
        ambiguity = ambiguity_of(tokenizer)
        masks, optional, bit = [0] * len(ids), [], 0
        for element in self.elements:
            letters = _meaning(element.letters, ambiguity)
            known(letters, ids, self.name)
            fitting = [token for letter, token in ids.items() if (letter in letters) != element.outside]
            for copy in range(element.high):
                for token in fitting:
                    masks[token] |= 1 << bit
                optional.append(copy >= element.low)
                bit += 1
        return MotifAutomaton(length, masks, optional, self.at_start, self.at_end, wanted)


class MotifAutomaton(Automaton):
    """The subset construction, done lazily: a state is the set of open places, as bits.

    Bit i stands for "the next letter may fill place i", the bit behind the last place for a match.
    """

    def __init__(
        self, length: int, masks: Sequence[int], optional: Sequence[bool], at_start: bool, at_end: bool, wanted: bool
    ) -> None:
        self._length = length
        self.kinds = self._masks = masks
        self._optional = optional
        self._again = not at_start
        self._at_end = at_end
        self._wanted = wanted
        self._first = self._skipped(1)
        # By how many tokens are left: the places from which a match still fits. Forgetting the
        # others keeps the automaton small.
        needed = [sum(not skip for skip in optional[i:]) for i in range(len(optional) + 1)]
        self._fitting = [sum(1 << i for i, need in enumerate(needed) if need <= left) for left in range(length + 1)]
        self._known: dict[tuple[int, int], int] = {}

    def _skipped(self, places: int) -> int:
        for i, optional in enumerate(self._optional):
            if optional and places >> i & 1:
                places |= 1 << (i + 1)
        return places

    def start(self) -> int:
        return self._first

    def advance(self, state: int, position: int, token: int) -> int | None:
        if state == _MATCHED:
            return state
        key = (state, self._masks[token])
        if key not in self._known:
            self._known[key] = self._skipped((state & key[1]) << 1) | (self._first if self._again else 0)
        after = self._known[key] & self._fitting[self._length - position - 1]
        if not self._at_end and self._full(after):
            return _MATCHED if self._wanted else None
        return None if self._wanted and not after else after

    def accepts(self, state: int) -> bool:
        return (state == _MATCHED or (self._at_end and self._full(state))) == self._wanted

    def _full(self, state: int) -> bool:
        return bool(state >> len(self._optional) & 1)


def ambiguity_of(tokenizer: Tokenizer[Any]) -> dict[str, Collection[str]]:
    """What codes of an alphabet stand for; a letter of the alphabet itself is never a code."""
    letters = set(tokenizer.letters)
    return {code: among for code, among in getattr(tokenizer, "ambiguity", {}).items() if code not in letters}


def _element(match: re.Match[str], name: str) -> Element:
    symbol, low, high = match.groups()
    least = 1 if low is None else int(low)
    most = least if high is None else int(high)
    if least > most or most == 0:
        raise UserError(f"constraint {name}: the repetition {match.group()!r} is empty; write the smaller number first")
    if symbol == "x":
        return Element("", True, least, most)
    return Element(symbol.strip("[]{}"), symbol.startswith("{"), least, most)


def _meaning(letters: str, ambiguity: Ambiguity) -> list[str]:
    return sorted({meant for letter in letters for meant in ambiguity.get(letter, letter)})

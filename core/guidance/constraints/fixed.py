"""Letters that stand at given places."""

from __future__ import annotations

import re
from typing import Any

from core.errors import UserError
from core.guidance.constraints._parse import known, token_ids, written
from core.guidance.constraints.base import Automaton, Constraint
from core.registry import Paper
from core.tokenizers.base import Tokenizer


class Fixed(Constraint):
    """`fixed:3K,7C`: K at the third place, C at the seventh; `-1K` counts from the end.

    A sequence too short to have one of the places is not accepted.
    """

    paper = Paper("ours", "Fixed positions")

    def __init__(self, *arguments: str) -> None:
        self._name = written("fixed", arguments, "fixed:3K,7C", most=1000)
        self._places: dict[int, str] = {}
        for item in ",".join(arguments).split(","):
            match = re.fullmatch(r"(-?\d+)([A-Za-z])", item.strip(), re.ASCII)
            place = int(match.group(1)) if match else 0
            if match is None or place == 0:
                raise UserError(
                    f"constraint {self._name}: {item.strip()!r} is not a place and a letter; places count from 1, or "
                    "from the end as -1, such as 3K,-1C"
                )
            if self._places.setdefault(place, match.group(2)) != match.group(2):
                raise UserError(f"constraint {self._name}: two letters for place {place}; keep one")

    @property
    def name(self) -> str:
        return self._name

    def compile(self, tokenizer: Tokenizer[Any], length: int) -> Automaton | None:
        ids = token_ids(tokenizer, self._name)
        known(self._places.values(), ids, self._name)
        tokens: dict[int, int] = {}
        for place, letter in self._places.items():
            position = place - 1 if place > 0 else length + place
            if not 0 <= position < length or tokens.setdefault(position, ids[letter]) != ids[letter]:
                return None
        return _At(tokens, len(ids))

    def check(self, value: str) -> bool:
        for place, letter in self._places.items():
            if len(value) < abs(place) or value[place - (place > 0)] != letter:
                return False
        return True


class _At(Automaton):
    def __init__(self, tokens: dict[int, int], size: int) -> None:
        self._tokens = tokens
        self.kinds = [token if token in tokens.values() else -1 for token in range(size)]

    def start(self) -> int:
        return 0

    def advance(self, state: int, position: int, token: int) -> int | None:
        return 0 if self._tokens.get(position, token) == token else None

    def accepts(self, state: int) -> bool:
        return True

"""Reading the arguments of constraints."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from core.errors import UserError
from core.tokenizers.base import Tokenizer

_NUMBER = r"\d+(?:\.\d+)?"
_DOTS = re.compile(rf"({_NUMBER})?\.\.({_NUMBER})?", re.ASCII)
_DASH = re.compile(r"(\d+)-(\d+)", re.ASCII)
_SINGLE = re.compile(_NUMBER, re.ASCII)


@dataclass(frozen=True)
class Range:
    """Inclusive bounds, None where open; exact, so that a share of a length is never off by one."""

    low: Fraction | None
    high: Fraction | None
    decimal: bool

    def holds(self, value: int | Fraction) -> bool:
        """Whether `value` lies inside."""
        return (self.low is None or self.low <= value) and (self.high is None or value <= self.high)


def parse_range(text: str, name: str) -> Range:
    """`a..b`, `2..`, `..5`, `a-b` between unsigned integers, or one number."""
    text = text.strip()
    match = _DOTS.fullmatch(text) or _DASH.fullmatch(text)
    if match is not None and any(match.groups()):
        low, high = match.groups()
    elif _SINGLE.fullmatch(text):
        low = high = text
    else:
        raise UserError(f"constraint {name}: {text!r} is not a range; write 8..20, 8.., ..20 or 8-20")
    bounds = Range(Fraction(low) if low else None, Fraction(high) if high else None, "." in (low or "") + (high or ""))
    if bounds.low is not None and bounds.high is not None and bounds.low > bounds.high:
        raise UserError(f"constraint {name}: the range {text!r} is empty; write the smaller number first")
    return bounds


def parse_integer(text: str, name: str, least: int) -> int:
    """An integer that is at least `least`."""
    text = text.strip()
    if not re.fullmatch(r"\d+", text, re.ASCII) or int(text) < least:
        raise UserError(f"constraint {name}: {text!r} is not an integer of at least {least}")
    return int(text)


def written(key: str, arguments: Collection[str], usage: str, least: int = 1, most: int = 1) -> str:
    """The constraint as written, once the number of its arguments is right and none is empty."""
    name = ":".join((key, *arguments))
    if not least <= len(arguments) <= most or not all(argument.strip() for argument in arguments):
        raise UserError(f"constraint {name}: wrong number of arguments or an empty one; write it as {usage}")
    return name


def token_ids(tokenizer: Tokenizer[Any], name: str) -> dict[str, int]:
    """The id of each letter of an alphabet whose tokens are written with single letters."""
    letters = tokenizer.letters
    long = next((letter for letter in letters if len(letter) != 1), None)
    if long is not None:
        raise UserError(f"constraint {name} reads single letters, but this alphabet has the token {long!r}; drop it")
    return {letter: token for token, letter in enumerate(letters)}


def known(letters: Collection[str], ids: dict[str, int], name: str) -> None:
    """Refuse letters outside the alphabet."""
    for letter in letters:
        if letter not in ids:
            raise UserError(f"constraint {name}: no letter {letter!r} in the alphabet {''.join(ids)}")

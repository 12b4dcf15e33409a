"""Reading the arguments of objectives."""

from __future__ import annotations

import re

from core.errors import UserError


def number(argument: str, text: str, low: float, high: float) -> float:
    """A command-line argument as a number in [low, high]."""
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{argument}: {text!r} is not a number") from None
    if not low <= value <= high:
        raise UserError(f"{argument}: {text} is outside {low:g}..{high:g}")
    return value


def whole(argument: str, text: str, low: int, high: int) -> int:
    """A command-line argument as a whole number in [low, high]."""
    if not re.fullmatch(r"\d+", text, re.ASCII) or not low <= int(text) <= high:
        raise UserError(f"{argument}: {text!r} is not a whole number in {low}..{high}")
    return int(text)

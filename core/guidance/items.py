"""The one written form of objectives and constraints.

An item is `name[:arg...][:min|:max|:near:x][@weight]`. Lists split at commas outside brackets and
double quotes; an argument holding `:`, `@` or `,` stands in double quotes; `name:@file` reads its
arguments from a file, one a line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError
from core.guidance.objectives.base import Direction, Objective, Target
from core.registry import Registry

_OPEN, _CLOSE = "([{", ")]}"


@dataclass(frozen=True)
class Item:
    """One parsed item; `text` is what was written."""

    text: str
    name: str
    arguments: tuple[str, ...]
    direction: Direction | None = None
    near: float = math.nan
    weight: float = 1.0


def split_list(text: str) -> list[str]:
    """The items of `[a,b:C(1,2),c:"x,y"]`; the outer brackets may be missing."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    return [part.strip() for part in _split(text, ",") if part.strip()]


def parse_item(text: str) -> Item:
    """One item, its arguments unquoted."""
    head, *parts = _split(text, ":")
    # A file reference of the user's own member holds one colon: path.py:Class.
    if head.endswith(".py") and parts:
        head = f"{head}:{parts.pop(0)}"
    weight = 1.0
    last = parts[-1] if parts else head
    body, mark, tail = last.rpartition("@")
    if mark and body and not last.startswith('"'):
        weight = _number(tail, text)
        if parts:
            parts[-1] = body
        else:
            head = body
    direction: Direction | None = None
    near = math.nan
    if parts and parts[-1] in ("min", "max"):
        direction = "min" if parts.pop() == "min" else "max"
    elif len(parts) >= 2 and parts[-2] == "near":
        near, direction = _number(parts[-1], text), "near"
        parts = parts[:-2]
    arguments: list[str] = []
    for part in parts:
        if part.startswith("@"):
            arguments += _lines(Path(part[1:]), text)
        else:
            arguments.append(part[1:-1] if len(part) > 1 and part[0] == part[-1] == '"' else part)
    if not head:
        raise UserError(f"item {text!r} names nothing")
    return Item(text, head, tuple(arguments), direction, near, weight)


def targets(items: Sequence[str], registry: Registry[Objective]) -> list[Target]:
    """The objectives asked for."""
    found = []
    for item, objective in members(items, registry):
        direction = item.direction or objective.direction
        found.append(Target(item.text.partition("@")[0], objective, direction, item.near, item.weight))
    return found


def members(items: Sequence[str], registry: Registry[Any]) -> list[tuple[Item, Any]]:
    """Each item with the member it builds; a wrong argument is the user's error."""
    built = []
    for item in map(parse_item, items):
        try:
            built.append((item, registry.get(item.name)(*item.arguments)))
        except (TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{registry.name} {item.text!r}: {error}") from error
    return built


def _split(text: str, separator: str) -> list[str]:
    parts, depth, quoted, start = [], 0, False, 0
    for index, letter in enumerate(text):
        if letter == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif letter in _OPEN:
            depth += 1
        elif letter in _CLOSE:
            depth -= 1
        elif letter == separator and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    if quoted or depth:
        raise UserError(f"unbalanced quotes or brackets in {text!r}")
    return [*parts, text[start:]]


def _number(text: str, item: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"item {item!r}: {text!r} is not a number") from None


def _lines(path: Path, item: str) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"item {item!r}: cannot read {path} ({error.strerror})") from error

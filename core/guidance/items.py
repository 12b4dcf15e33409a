"""The one written form of objectives and constraints.

An item is `name[:arg...][:min|:max|:near:x][@weight]`. Lists split at commas outside brackets and
double quotes; an argument holding `:`, `@` or `,` stands in double quotes; `name:@file` reads its
arguments from a file, one a line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import UserError, as_user_error
from core.guidance.objectives.base import Direction, Objective, Target
from core.registry import Registry
from core.tokenizers.base import Tokenizer

_OPEN, _CLOSE = "([{", ")]}"
# A weight ends the item. It never holds what paths, further arguments or quoted text hold.
_WEIGHT = re.compile(r'(?<=[^@:])@([^@:"/]*)$')


@dataclass(frozen=True)
class Item:
    """One parsed item; `label` is what was written, without the weight."""

    label: str
    name: str
    arguments: tuple[str, ...]
    direction: Direction | None = None
    near: float = math.nan
    weight: float = 1.0


def split_list(text: str) -> list[str]:
    """The items of `[a,b:C(1,2),c:"x,y"]`; the outer brackets may be missing."""
    text = text.strip()
    if text.startswith("[") and text.endswith("]") and _closes(text) == len(text) - 1:
        text = text[1:-1]
    return [part.strip() for part in _split(text, ",") if part.strip()]


def parse_item(text: str) -> Item:
    """One item, its arguments unquoted."""
    label, weight = text, 1.0
    found = _WEIGHT.search(text)
    if found is not None:
        label, weight = text[: found.start()], _number(found.group(1), text)
    if _WEIGHT.search(label):
        raise UserError(f"item {text!r} has two weights; an argument that holds '@' stands in double quotes")
    head, *parts = _split(label, ":")
    # A file reference of the user's own member holds one colon: path.py:Class.
    if head.endswith(".py") and parts:
        head = f"{head}:{parts.pop(0)}"
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
            arguments += _lines(Path(_unquoted(part[1:])), text)
        else:
            arguments.append(_unquoted(part))
    if not head:
        raise UserError(f"item {text!r} names nothing")
    return Item(label, head, tuple(arguments), direction, near, weight)


def targets(
    items: Sequence[str], registry: Registry[Objective], tokenizer: Tokenizer[Any] | None = None
) -> list[Target]:
    """The objectives asked for; with a `tokenizer`, of its sequences."""
    found = []
    for item, objective in members(items, registry, tokenizer):
        direction = item.direction or objective.direction
        found.append(Target(item.label, objective, direction, item.near, item.weight))
    twice = next((target.name for n, target in enumerate(found) if target.name in {t.name for t in found[:n]}), None)
    if twice is not None:
        raise UserError(f"objective {twice} is asked for twice: drop one")
    return found


def rules(items: Sequence[str], registry: Registry[Any], tokenizer: Tokenizer[Any] | None = None) -> list[Any]:
    """The constraints asked for; they hold or not, so they take neither direction nor weight."""
    found = []
    for item, constraint in members(items, registry, tokenizer):
        if item.direction is not None or item.weight != 1.0:
            raise UserError(f"constraint {item.label}: only an objective takes a direction or a weight")
        found.append(constraint)
    return found


def members(
    items: Sequence[str], registry: Registry[Any], tokenizer: Tokenizer[Any] | None = None
) -> list[tuple[Item, Any]]:
    """Each item with the member it builds.

    A wrong argument is the user's error, and so is a member that reads another kind of sequence than
    the `tokenizer` writes.
    """
    built = []
    for item in map(parse_item, items):
        member = registry.get(item.name)
        if tokenizer is not None:
            tokenizer.refuse_others(f"{registry.name} {item.label}", member.kind)
        with as_user_error(f"{registry.name} {item.label!r}"):
            built.append((item, member(*item.arguments)))
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


def _closes(text: str) -> int:
    """Where the bracket that opens `text` closes; -1 if nowhere."""
    depth, quoted = 0, False
    for index, letter in enumerate(text):
        if letter == '"':
            quoted = not quoted
        elif not quoted:
            depth += (letter in _OPEN) - (letter in _CLOSE)
            if depth == 0:
                return index
    return -1


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


def _number(text: str, item: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"item {item!r}: {text!r} is not a number")
    return number


def _lines(path: Path, item: str) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise UserError(f"item {item!r}: {path} is not a text file in UTF-8") from None
    except OSError as error:
        raise UserError(f"item {item!r}: cannot read {path} ({error.strerror})") from error

"""Fusions from plain configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.backbones.memories import registry
from core.backbones.memories.base import Fusion
from core.errors import UserError, as_user_error
from core.registry import did_you_mean


def build_fusions(entry: Mapping[str, Any], width: int, sources: Mapping[str, int], depth: int) -> list[Fusion | None]:
    """What each of `depth` layers reads the memories with, None in the layers that read none.

    `entry` is `{"name": key, "layers": places or None, **options}`. Raises `UserError` for an
    entry that names no fusion, layers that there are not, and whatever the member refuses.
    """
    options = {str(key): value for key, value in entry.items()}
    name, layers = options.pop("name", None), options.pop("layers", None)
    if not isinstance(name, str):
        raise UserError(f"model.fusion needs the name of a fusion{did_you_mean('', registry.keys())}")
    if not sources:
        raise UserError(f"fusion {name} reads no memory: name one under model.encoders")
    places = range(depth) if layers is None else layers
    if not all(place in range(depth) for place in places):
        raise UserError(f"model.fusion.layers={list(places)}: the model has layers 0 to {depth - 1}")
    member = registry.get(name)
    with as_user_error(f"fusion {name}"):
        return [member(width, sources, **options) if layer in places else None for layer in range(depth)]

"""A mixer from plain configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from core.backbones.mixers import registry
from core.backbones.mixers.base import SequenceMixer
from core.data.mask import MaskSpec
from core.errors import UserError, as_user_error
from core.registry import did_you_mean


def build_mixer(entry: Mapping[str, Any], width: int, mask: MaskSpec) -> SequenceMixer:
    """The mixer that `{"name": key, **options}` describes.

    `window` and `sinks` narrow the mask of this layer, whatever the mixer; every other option is
    a parameter of the member's constructor. Raises `UserError` for an entry that names no mixer,
    an option that the mixer lacks, and whatever the member refuses.
    """
    options = {str(key): value for key, value in entry.items()}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise UserError(f"a pattern entry needs the name of a mixer, got {dict(entry)}")
    member = registry.get(name)
    window, sinks = options.pop("window", None), options.pop("sinks", None) or 0
    known = tuple(key for key in inspect.signature(member).parameters if key not in ("width", "mask"))
    for option in options:
        if option not in known:
            raise UserError(f"mixer {name} has no option {option!r}{did_you_mean(option, (*known, 'window', 'sinks'))}")
    with as_user_error(f"mixer {name}"):
        return member(width=width, mask=_narrowed(mask, window, sinks), **options)


def _narrowed(mask: MaskSpec, window: int | None, sinks: int) -> MaskSpec:
    if window is None and not sinks:
        return mask
    windows = [width for width in (window, mask.window) if width is not None]
    return replace(mask, window=min(windows, default=None), sinks=max(sinks, mask.sinks))

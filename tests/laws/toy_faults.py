"""How faults are planted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


def patched(owner: Any, name: str, change: Callable[..., Any]) -> Callable[[pytest.MonkeyPatch], None]:
    """A fault: what `name` gives, changed; `change` is told its result and its arguments."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        true = getattr(owner, name)
        patch.setattr(owner, name, lambda *arguments: change(true(*arguments), *arguments))

    return plant


def replaced(owner: Any, name: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(owner, name, value)

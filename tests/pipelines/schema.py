"""What every metrics.json holds."""

from __future__ import annotations

import re
from typing import Any

NUMBER = (int, float, type(None))
# Key -> kind of value, or the keys below, in the order in which they are written.
SCHEMA: dict[str, Any] = {
    "schema": int,
    "verb": str,
    "domain": str,
    "task": str,
    "protocol": (str, type(None)),
    "data": {"name": (str, type(None)), "sha256": (str, type(None)), "n": int},
    "model": {"name": (str, type(None)), "parameters": int},
    "samples": {"sha256": (str, type(None)), "n": int},
    "seed": int,
    "values": dict,
    "baselines": dict,
    "constraints": {"checked": int, "violated": int},
    "objective_calls": int,
    "objective_evaluations": dict,
    "network_calls": int,
    "seconds": float,
    "versions": dict,
}


def check_metrics(body: dict[str, Any], schema: dict[str, Any] = SCHEMA) -> None:
    """The keys, their order and their kinds; all numbers and texts, no NaN."""
    assert list(body) == list(schema)
    for key, kind in schema.items():
        if isinstance(kind, dict):
            check_metrics(body[key], kind)
        else:
            assert isinstance(body[key], kind) and not isinstance(body[key], bool), key
    if schema is SCHEMA:
        assert body["schema"] == 1
        for measured in (body["values"], *body["baselines"].values()):
            assert all(isinstance(name, str) and re.fullmatch(r"[a-z][a-z0-9_@.]*", name) for name in measured)
            assert all(isinstance(value, (str, *NUMBER)) for value in measured.values())
        assert all(isinstance(count, int) for count in body["objective_evaluations"].values())
        assert all(isinstance(version, str) for version in body["versions"].values())

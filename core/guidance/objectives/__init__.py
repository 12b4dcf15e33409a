"""Properties of finished sequences, one file each; lists name them, so they have no YAML.

A new one is one file here; `tests/laws/test_objectives.py` runs on it by itself.
"""

from core.guidance.objectives.base import Objective
from core.registry import Registry

registry: Registry[Objective] = Registry("objective", Objective, __name__)

"""Rules that no output breaks, one file each; lists name them, so they have no YAML.

A new one is one file here; `tests/laws/test_constraints.py` runs on it by itself.
"""

from core.guidance.constraints.base import Constraint
from core.registry import Registry

registry: Registry[Constraint] = Registry("constraint", Constraint, __name__)

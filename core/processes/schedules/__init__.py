"""How a mixture path moves from noise to data, one file each.

A new one is one file here and one YAML in `configs/schedule/`; `tests/laws/test_schedules.py` runs on it by itself.
"""

from core.processes.schedules.base import Schedule
from core.registry import Registry

registry: Registry[Schedule] = Registry("schedule", Schedule, __name__)

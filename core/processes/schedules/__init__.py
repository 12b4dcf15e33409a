"""How a mixture path moves from noise to data, one file each."""

from core.processes.schedules.base import Schedule
from core.registry import Registry

registry: Registry[Schedule] = Registry("schedule", Schedule, __name__)

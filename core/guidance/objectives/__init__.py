"""Properties of finished sequences, one file each."""

from core.guidance.objectives.base import Objective
from core.registry import Registry

registry: Registry[Objective] = Registry("objective", Objective, __name__)

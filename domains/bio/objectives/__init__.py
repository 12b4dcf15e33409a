"""Computed properties of peptides and DNA, one file each."""

from core.guidance.objectives.base import Objective
from core.registry import Registry

registry: Registry[Objective] = Registry("objective", Objective, __name__)

"""Cheap stand-ins for expensive objectives, one file each."""

from core.guidance.surrogates.base import Surrogate
from core.registry import Registry

registry: Registry[Surrogate] = Registry("surrogate", Surrogate, __name__)

"""The loops that draw tokens, one file each."""

from core.decoding.base import Sampler
from core.registry import Registry

registry: Registry[Sampler] = Registry("sampler", Sampler, __name__)

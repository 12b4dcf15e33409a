"""Samplers, the loops that draw tokens, one file each.

A new one is one file here and one YAML in `configs/sampler/`; `tests/laws/test_decoding.py` runs on it by itself.
"""

from core.decoding.base import Sampler
from core.registry import Registry

registry: Registry[Sampler] = Registry("sampler", Sampler, __name__)

"""Sequence mixers, one file each; `base.py` states what each must promise.

A new one is one file here and one YAML in `configs/mixer/`; `tests/laws/test_mixers.py` runs on it by itself.
"""

from core.backbones.mixers.base import SequenceMixer
from core.registry import Registry

registry: Registry[SequenceMixer] = Registry("mixer", SequenceMixer, __name__)

"""Sequence mixers, one file each."""

from core.backbones.mixers.base import SequenceMixer
from core.registry import Registry

registry: Registry[SequenceMixer] = Registry("mixer", SequenceMixer, __name__)

"""Guides, the ways to tilt a transition, one file each.

A new one is one file here and one YAML in `configs/guide/`; `tests/laws/test_guides.py` runs on it by itself.
"""

from core.guidance.guides.base import Guide
from core.registry import Registry

registry: Registry[Guide] = Registry("guide", Guide, __name__)

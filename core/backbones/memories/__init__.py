"""How a layer reads several memories, one file each; `base.py` states what each must promise.

A new one is one file here and one YAML in `configs/fusion/`; `tests/laws/test_memories.py` runs on it by itself.
"""

from core.backbones.memories.base import Fusion
from core.registry import Registry

registry: Registry[Fusion] = Registry("fusion", Fusion, __name__)

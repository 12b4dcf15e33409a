"""What mixers share."""

from core.backbones.engines.attend import attend

__all__ = ["attend"]

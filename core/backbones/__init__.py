"""Networks: sequence mixers in blocks, and the state that decoding carries."""

from core.backbones.backbone import Backbone
from core.backbones.state import State

__all__ = ["Backbone", "State"]

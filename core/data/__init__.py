"""Batches, layouts, masks, noise and token shards."""

from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.data.noise import Noise, Purpose, draw
from core.data.packing import pack, packed_layout, unpack
from core.data.relations import Relations
from core.data.sequence_batch import Memory, SequenceBatch
from core.data.shards import TokenShards

__all__ = [
    "Layout",
    "MaskSpec",
    "Memory",
    "Noise",
    "Purpose",
    "Relations",
    "SequenceBatch",
    "TokenShards",
    "draw",
    "pack",
    "packed_layout",
    "unpack",
]

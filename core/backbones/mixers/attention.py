"""Softmax attention."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from core.backbones.engines.attend import attend
from core.backbones.mixers.base import ROLLBACK, Capabilities, Keep, SequenceMixer
from core.backbones.positions import positions_of, rotate
from core.backbones.state import KeyValue, State
from core.data.layout import Layout
from core.data.mask import MaskSpec
from core.registry import Paper


class Attention(SequenceMixer):
    """Multi-head softmax attention; fewer key heads than heads make it grouped- or multi-query.

    Decodes under causal masks only: under the others a later token changes earlier outputs. With a
    block mask a width that is no multiple of the block is refused beside a state, and `step` with
    it. A row may end inside its last block; one that goes on from there, which no wait for the
    device lets us refuse, reads NaN.
    """

    paper = Paper(
        "ours",
        "Attention Is All You Need",
        "1706.03762",
        "rotary positions (2104.09864), shared key heads (2305.13245), no biases",
    )
    capabilities = Capabilities(
        masks=frozenset({"causal", "full", "prefix", "window", "sinks", "block"}), state="growing", cost=2.0
    )

    def __init__(
        self,
        width: int,
        mask: MaskSpec,
        heads: int = 4,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        rotary: bool = True,
    ) -> None:
        super().__init__(width, mask)
        kv_heads = heads if kv_heads is None else kv_heads
        if heads < 1 or kv_heads < 1:
            raise ValueError(f"{heads} heads on {kv_heads} key heads: at least one of each is needed")
        if head_dim is None and width % heads:
            raise ValueError(f"width {width} is no multiple of {heads} heads: name head_dim")
        head_dim = width // heads if head_dim is None else head_dim
        if heads % kv_heads:
            raise ValueError(f"{heads} heads cannot share {kv_heads} key heads evenly")
        if rotary and head_dim % 2:
            raise ValueError(f"rotary positions turn pairs: head_dim {head_dim} is odd")
        self.heads, self.kv_heads, self.head_dim, self.rotary = heads, kv_heads, head_dim, rotary
        self.query = nn.Linear(width, heads * head_dim, bias=False)
        self.key = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.value = nn.Linear(width, kv_heads * head_dim, bias=False)
        self.out = nn.Linear(heads * head_dim, width, bias=False)

    def forward(
        self, h: Float[Tensor, "B L D"], layout: Layout, state: State | None = None, keep: Keep = "none"
    ) -> tuple[Float[Tensor, "B L D"], State | None]:
        before = self._before(layout, state, keep)
        h = h.masked_fill(~layout.valid[..., None], 0)
        query, key, value = (
            project(h).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        if self.rotary:
            positions = positions_of(layout, before)
            query, key = rotate(query, positions), rotate(key, positions)
        if before is None:
            mixed, _ = attend(query, key, value, self.mask, layout)
            return self.out(mixed.transpose(1, 2).flatten(2)), None
        assert isinstance(before, KeyValue)
        torn = self._torn(before, layout)
        places = torch.where(layout.valid, before.position[:, None] + layout.offsets, -1)
        keys = torch.cat([before.keys.to(key.dtype), key], 2)
        values = torch.cat([before.values.to(value.dtype), value], 2)
        slots = torch.cat([before.places, places], 1)
        same = (slots >= 0)[:, None] & layout.valid[:, :, None]
        seen = self.mask.allows(places[:, :, None], slots[:, None], same, None)
        mixed, _ = attend(query, keys, values, seen)
        y = self.out(mixed.transpose(1, 2).flatten(2))
        y = y if torn is None else y.masked_fill(torn[:, None, None], torch.nan)
        if keep == "none":
            return y, None
        end = before.position + layout.lengths
        if self.mask.window is None:
            return y, KeyValue(end, keys, values, slots, before.oldest)
        return y, self._ring(before, key, value, end)

    def _torn(self, before: KeyValue, layout: Layout) -> Bool[Tensor, " N"] | None:
        """Rows that go on inside a block, whose first tokens were answered without the rest; None without blocks."""
        block = self.mask.block
        if block is None:
            return None
        if layout.shape[1] % block:
            raise ValueError(f"with a state a block mask reads whole blocks of {block} tokens, not {layout.shape[1]}")
        return (before.position % block > 0) & (layout.lengths > 0)

    def _ring(
        self,
        before: KeyValue,
        key: Float[Tensor, "N G L E"],
        value: Float[Tensor, "N G L E"],
        end: Int[Tensor, " N"],
    ) -> KeyValue:
        """Each slot takes the latest of the new tokens that falls to it, or keeps what it had."""
        start, length = before.position[:, None], key.shape[2]
        slot = torch.arange(before.places.shape[1], device=end.device)[None]
        sinks, ring = self.mask.sinks, before.places.shape[1] - self.mask.sinks
        turns = (end[:, None] - 1 - slot).div(ring, rounding_mode="floor")
        latest = torch.where(slot < sinks, slot, slot + ring * turns)
        fresh = (latest >= start) & (latest < end[:, None])
        # Below the sinks' slots a turn may point before the ring begins: nothing has come yet.
        fresh = fresh & ((slot < sinks) | (latest >= sinks))
        source = (latest - start).clamp(0, max(length - 1, 0))[:, None, :, None]

        def update(old: Float[Tensor, "N G T E"], new: Float[Tensor, "N G L E"]) -> Float[Tensor, "N G T E"]:
            if not length:
                return old
            taken = new.gather(2, source.expand(-1, new.shape[1], -1, new.shape[3]))
            return torch.where(fresh[:, None, :, None], taken, old.to(new.dtype))

        oldest = torch.where(end - sinks <= ring, 0, end - ROLLBACK).maximum(before.oldest)
        places = torch.where(fresh, latest, before.places)
        return KeyValue(end, update(before.keys, key), update(before.values, value), places, oldest)

    def init_state(self, n: int) -> KeyValue:
        if self.mask.mode != "causal":
            raise ValueError(f"attention decodes under a causal mask only, not under {self.mask.mode!r}")
        weight = self.key.weight
        slots = 0 if self.mask.window is None else self.mask.sinks + self.mask.window + ROLLBACK
        empty = weight.new_zeros(n, self.kv_heads, slots, self.head_dim)
        nothing = torch.zeros(n, dtype=torch.long, device=weight.device)
        return KeyValue(nothing, empty, empty, nothing[:, None].expand(n, slots) - 1, nothing)

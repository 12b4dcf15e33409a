"""Which token may see which, as a value; dense masks exist only as the reference."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool
from torch import Tensor

if TYPE_CHECKING:
    from core.data.layout import Layout

Mode = Literal["causal", "full", "prefix"]


@dataclass(frozen=True)
class MaskSpec:
    """What a query sees inside its own sequence; other sequences are never visible.

    mode: `causal` sees itself and the past; `full` everything; `prefix` is causal, except that
        the first `Layout.prefix[n]` tokens of sequence n are seen by all of it.
    window: at most this many positions away (the query itself counts as one), in each direction.
    sinks: the first `sinks` tokens of a sequence stay visible through the window.
    block: the past is counted in blocks of that many tokens from the sequence's start: a query
        sees all of its own block and of those before it (block diffusion, arXiv 2503.09573). A
        window beside it holds a whole block, so that it hides none of the query's own; a prefix
        is seen besides. `full` shows every block anyway and takes none.
    """

    mode: Mode = "full"
    window: int | None = None
    sinks: int = 0
    block: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("causal", "full", "prefix"):
            raise ValueError(f"unknown mask mode {self.mode!r}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"a window holds at least the query itself, got {self.window}")
        if self.sinks and self.window is None:
            raise ValueError("sinks only mean something beside a window")
        if self.block is None:
            return
        if self.block < 1:
            raise ValueError(f"a block holds at least one token, got {self.block}")
        if self.mode == "full":
            raise ValueError("a full mask shows every block: blocks belong to causal and prefix masks")
        if self.window is not None and self.window < self.block:
            raise ValueError(f"a window of {self.window} would hide tokens of a query's own block of {self.block}")

    @property
    def features(self) -> frozenset[str]:
        """What a mixer must honour: the mode and, where used, `window`, `sinks` and `block`."""
        found = {self.mode}
        if self.window is not None:
            found.add("window")
        if self.sinks:
            found.add("sinks")
        if self.block is not None:
            found.add("block")
        return frozenset(found)

    def allows(self, query: Tensor, key: Tensor, same: Tensor, prefix: Tensor | None) -> Tensor:
        """The rule itself, on broadcastable tensors.

        query, key: offsets inside their sequences; same: whether both lie in one sequence;
        prefix: length of the query's prefix.
        """
        last = query if self.block is None else query - query % self.block + (self.block - 1)
        past = key <= last
        if self.mode == "causal":
            seen = past
        elif self.mode == "full":
            seen = torch.ones_like(past)
        else:
            if prefix is None:
                raise ValueError("a prefix mask needs Layout.prefix")
            seen = past | (key < prefix)
        if self.window is not None:
            near = (query - key).abs() < self.window
            seen = seen & (near | (key < self.sinks) if self.sinks else near)
        return seen & same

    def dense(self, layout: Layout) -> Bool[Tensor, "B L L"]:
        """The reference: entry [b, q, k] says whether q sees k; padding sees nothing."""
        offset, owner = layout.offsets, layout.owners
        same = (owner[:, :, None] == owner[:, None, :]) & layout.valid[:, :, None]
        prefix = None
        if layout.prefix is not None and len(layout.prefix):
            prefix = layout.prefix[owner.clamp_min(0)][:, :, None]
        return self.allows(offset[:, :, None], offset[:, None, :], same, prefix)

    def mask_mod(self, layout: Layout) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """The same rule in the form that torch's flex attention takes."""
        offset, owner, prefix = layout.offsets, layout.owners, layout.prefix

        def rule(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            own = owner[batch, query]
            return self.allows(
                offset[batch, query],
                offset[batch, key],
                (own == owner[batch, key]) & (own >= 0),
                None if prefix is None else prefix[own.clamp_min(0)],
            )

        return rule

    def resets(self, layout: Layout, reverse: bool = False) -> Bool[Tensor, "B L"]:
        """Where a recurrence forgets: the first token of each sequence, or the last in reverse.

        Causal masks need the forward pass alone, full masks both. Raises ValueError for masks
        that no pass over resets can express.
        """
        if self.features - {"causal", "full"}:
            raise ValueError(f"a recurrence cannot honour {sorted(self.features - {'causal', 'full'})}")
        if reverse and self.mode == "causal":
            raise ValueError("a causal mask allows no reverse pass")
        if reverse:
            last = layout.lengths[layout.owners.clamp_min(0)] - 1 if layout.count else layout.offsets
            return layout.offsets == last
        return layout.offsets == 0

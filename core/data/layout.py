"""Where sequences begin and end: the one description of padded and packed batches."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from core.data.mask import MaskSpec
from core.data.relations import Relations

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Layout:
    """N sequences laid out in tensors of shape `[B, L]`.

    Padded: B = N, sequence n fills row n from the left. Packed: B = 1, sequences follow each
    other, and slack may stand at the end. Build one with `padded` or `packed` at the model's
    border; layers only read it, and never wait for the device. Empty and length-1 sequences
    are legal.

    lengths: tokens of each sequence. cu_seqlens: cumulative lengths when packed, else None.
    owners: the sequence each token belongs to, -1 for padding. offsets: place inside its
    sequence (0 for padding). positions: P coordinates a token for position encodings.
    prefix: tokens of each sequence that all of it may see, under a prefix mask. longest: no
    sequence has more tokens; known on the host, so that layers need not ask the device.
    relations: typed edges between tokens of one sequence, for mixers that look at them.
    derived: what `once` has made.
    """

    lengths: Int[Tensor, " N"]
    cu_seqlens: Int[Tensor, " N+1"] | None
    owners: Int[Tensor, "B L"]
    offsets: Int[Tensor, "B L"]
    positions: Int[Tensor, "B L P"]
    mask: MaskSpec = MaskSpec()
    prefix: Int[Tensor, " N"] | None = None
    longest: int = 0
    relations: Relations | None = None
    derived: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    @staticmethod
    def padded(lengths: Int[Tensor, " N"], width: int, mask: MaskSpec = MaskSpec()) -> Layout:
        """Rows of `width` tokens, one sequence each."""
        place = torch.arange(width, device=lengths.device).expand(len(lengths), width)
        inside = place < lengths[:, None]
        owners = torch.where(inside, torch.arange(len(lengths), device=lengths.device)[:, None], -1)
        offsets = torch.where(inside, place, 0)
        return Layout(lengths, None, owners, offsets, offsets[..., None], mask, longest=width)

    @staticmethod
    def packed(lengths: Int[Tensor, " N"], width: int, mask: MaskSpec = MaskSpec()) -> Layout:
        """One row of `width` >= sum(lengths) tokens; the rest is slack. Waits for the device once."""
        ends = lengths.cumsum(0)
        cu_seqlens = torch.nn.functional.pad(ends, (1, 0)).to(torch.int32)
        place = torch.arange(width, device=lengths.device)
        owners = torch.searchsorted(ends, place, right=True)
        inside = owners < len(lengths)
        owners = torch.where(inside, owners, -1)
        starts = (ends - lengths)[owners.clamp_min(0)] if len(lengths) else torch.zeros_like(place)
        offsets = torch.where(inside, place - starts, 0)[None]
        longest = int(lengths.max()) if len(lengths) else 0
        return Layout(lengths, cu_seqlens, owners[None], offsets, offsets[..., None], mask, longest=longest)

    @property
    def count(self) -> int:
        """N, the number of sequences."""
        return len(self.lengths)

    @property
    def is_packed(self) -> bool:
        return self.cu_seqlens is not None

    @property
    def shape(self) -> tuple[int, int]:
        """`(B, L)`."""
        return self.owners.shape[0], self.owners.shape[1]

    @property
    def valid(self) -> Bool[Tensor, "B L"]:
        """Which places hold a token."""
        return self.owners >= 0

    def masked(self, mask: MaskSpec) -> Layout:
        """The same layout under another mask; index tables are shared, not rebuilt."""
        return self if mask == self.mask else replace(self, mask=mask)

    def with_prefix(self, prefix: Int[Tensor, " N"]) -> Layout:
        """The same layout with a visible prefix for each sequence."""
        return replace(self, prefix=prefix)

    def with_relations(self, relations: Relations) -> Layout:
        """The same layout with edges; `ValueError` for one that leaves its sequence. Waits for the device."""
        relations.refuse_outside(self.lengths)
        return replace(self, relations=relations)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` derives from the tables, at the first ask for `key`: all layers that read the layout share it."""
        if torch.compiler.is_compiling():
            # The compiler joins equal work by itself, and cannot give such values back.
            return make()
        # Tensors made in inference mode can never be saved for a backward pass.
        key = key, torch.is_inference_mode_enabled()
        if key not in self.derived:
            self.derived[key] = make()
        return self.derived[key]

    def to(self, device: torch.device | str) -> Layout:
        """The same layout on another device."""
        parts = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        moved = {name: part.to(device) for name, part in parts.items() if isinstance(part, Tensor | Relations)}
        return replace(self, **moved)

    def select(self, index: Int[Tensor, " K"]) -> Layout:
        """Sequences `index` of a padded layout, in that order."""
        if self.is_packed:
            raise ValueError("select needs a padded layout: unpack first")
        chosen = Layout.padded(self.lengths[index], self.shape[1], self.mask)
        prefix = None if self.prefix is None else self.prefix[index]
        relations = None if self.relations is None else self.relations.select(index)
        return replace(chosen, positions=self.positions[index], prefix=prefix, relations=relations)

    def narrowed(self, width: int) -> Layout:
        """A padded layout without its last places, which hold no token."""
        fewer = Layout.padded(self.lengths, width, self.mask)
        return replace(fewer, positions=self.positions[:, :width], prefix=self.prefix, relations=self.relations)

    def last(self) -> tuple[Tensor, Tensor]:
        """`(row, column)` of each sequence's last token; column -1 marks an empty sequence."""
        if self.cu_seqlens is None:
            return torch.arange(self.count, device=self.lengths.device), self.lengths - 1
        column = torch.where(self.lengths > 0, self.cu_seqlens[1:].long() - 1, -1)
        return torch.zeros_like(column), column

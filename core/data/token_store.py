"""Sequences of token ids in two files, memory-mapped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from core.errors import UserError

REMEDY = "run `motif prepare` again"


@runtime_checkable
class Digest(Protocol):
    """A hash that takes in bytes."""

    def update(self, data: Any, /) -> None: ...


@dataclass(frozen=True, eq=False)
class TokenStore:
    """Sequences of token ids; item i is one sequence.

    tokens: uint16, little endian, the sequences end to end. offsets: int64, one more than sequences.
    """

    tokens: np.ndarray
    offsets: np.ndarray

    @staticmethod
    def write(
        tokens: Path, offsets: Path, splits: Mapping[str, Iterable[Sequence[int] | np.ndarray]], digest: Digest
    ) -> dict[str, int]:
        """Store the sequences of the splits, one after the other, and tell how many each has.

        `digest` takes in what is written.
        """
        ends, counts = [0], {}
        with open(tokens, "wb") as stream:
            for name, sequences in splits.items():
                before = len(ends)
                for sequence in sequences:
                    data = _as_bytes(sequence)
                    stream.write(data)
                    digest.update(data)
                    ends.append(ends[-1] + len(sequence))
                counts[name] = len(ends) - before
        places = np.asarray(ends, dtype="<i8")
        digest.update(places.tobytes())
        with open(offsets, "wb") as stream:
            np.save(stream, places, allow_pickle=False)
        return counts

    @staticmethod
    def open(tokens: Path, offsets: Path, count: int, digest: Digest) -> TokenStore:
        """Map the two files of `count` sequences; `digest` takes in what they hold.

        Raises `UserError` for a file of another kind, or two that do not belong together.
        """
        store = TokenStore(_map_tokens(tokens), _map_offsets(offsets))
        ends = store.offsets
        if len(ends) != count + 1 or ends[0] != 0 or ends[-1] != len(store.tokens):
            raise UserError(
                f"{tokens.parent}: {tokens.name}, {offsets.name} and meta.json do not belong together: {REMEDY}"
            )
        digest.update(store.tokens.data)
        digest.update(ends.tobytes())
        return store

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence, int64."""
        return np.diff(self.offsets)

    def part(self, start: int, count: int) -> TokenStore:
        """`count` sequences from `start` on."""
        return replace(self, offsets=self.offsets[start : start + count + 1])

    def token_counts(self, size: int) -> np.ndarray:
        """How often each of the ids 0..size-1 occurs, int64."""
        return np.bincount(self.tokens[self.offsets[0] : self.offsets[-1]], minlength=size)[:size]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        index %= len(self)
        return self.tokens[self.offsets[index] : self.offsets[index + 1]]


def _as_bytes(sequence: Sequence[int] | np.ndarray) -> bytes:
    ids = np.asarray(sequence, dtype=np.int64)
    if ids.ndim != 1 or (len(ids) and (ids.min() < 0 or ids.max() > 0xFFFF)):
        raise ValueError("a sequence is a flat list of token ids from 0 to 65535")
    return ids.astype("<u2").tobytes()


def _map_tokens(path: Path) -> np.ndarray:
    size = path.stat().st_size
    if size % 2:
        raise UserError(f"{path}: {size} bytes are no whole number of tokens: {REMEDY}")
    # An empty file cannot be mapped.
    return np.memmap(path, dtype="<u2", mode="r") if size else np.zeros(0, dtype="<u2")


def _map_offsets(path: Path) -> np.ndarray:
    try:
        offsets = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not an array of offsets: {REMEDY}") from error
    if not isinstance(offsets, np.ndarray) or offsets.dtype != np.dtype("<i8") or offsets.ndim != 1 or not len(offsets):
        raise UserError(f"{path}: not a flat int64 array of offsets: {REMEDY}")
    return offsets

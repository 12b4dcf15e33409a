"""The contract of every tokenizer."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from core.errors import UserError
from core.registry import Paper

Object = TypeVar("Object")


@dataclass(frozen=True)
class Vocabulary:
    """Ids of one token alphabet: data tokens come first, special ones follow.

    `size` data tokens have the ids 0..size-1, so a head over data tokens (and `eos` after
    them) needs no gap; `bos`, `mask` and `pad` are inputs only.
    """

    size: int

    @property
    def eos(self) -> int:
        return self.size

    @property
    def bos(self) -> int:
        return self.size + 1

    @property
    def mask(self) -> int:
        return self.size + 2

    @property
    def pad(self) -> int:
        return self.size + 3

    @property
    def total(self) -> int:
        """Rows an embedding table needs."""
        return self.size + 4


class Tokenizer(ABC, Generic[Object]):
    """Turns a domain's objects into ids and back.

    decode(encode(x)) equals x for every object that `encode` accepts; arbitrary ids decode to an
    object or raise `UserError`, never anything else. `letters` are what single-token
    patterns of constraints may name. `kind` says what the sequences are, such as `dna`, where members
    that read one kind only must tell. Saved as JSON; equal content has an equal hash.
    """

    paper: ClassVar[Paper]
    kind: ClassVar[str | None] = None

    @property
    @abstractmethod
    def vocabulary(self) -> Vocabulary:
        """Ids of this tokenizer."""

    @property
    @abstractmethod
    def letters(self) -> Sequence[str]:
        """The written form of each data token, by id."""

    @abstractmethod
    def encode(self, value: Object) -> list[int]:
        """Data ids of an object, without special tokens; `UserError` if it cannot be read."""

    @abstractmethod
    def decode(self, ids: Sequence[int], context: Any = None) -> Object:
        """The object of some ids. `context` is what the object was drawn for, if anything."""

    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """The constructor arguments that rebuild this tokenizer."""

    def canonical(self, value: Object) -> Hashable:
        """The same for objects that are one thing to measure, such as a strand and its reverse complement."""
        return value

    def to_json(self, key: str) -> str:
        """The saved form, `key` being the registry key."""
        body = {"tokenizer": key, "settings": dict(self.settings()), "letters": list(self.letters)}
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
        return json.dumps({**body, "sha256": digest}, indent=1)

    def refuse_others(self, member: str, kind: str | None) -> None:
        """`UserError` where `member` reads sequences of one kind, and these are of another."""
        if kind is not None and self.kind is not None and kind != self.kind:
            raise UserError(f"{member} reads {kind}, but this task writes {self.kind}: drop it")

    def sha256(self, key: str) -> str:
        """Hash of the saved form, by which token shards name the tokenizer that wrote them."""
        return hashlib.sha256(self.to_json(key).encode()).hexdigest()

"""What tokenizers of one letter a token share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import UserError
from core.tokenizers.base import Tokenizer, Vocabulary
from domains.base import shown
from domains.bio.alphabet import Alphabet


class Letterwise(Tokenizer[str]):
    """One token a letter of `alphabet`, in its order.

    Ambiguity policy: an ambiguous letter is refused, never resolved, because no choice of ours
    would be the user's data; `ambiguity` says what each stands for in motifs, which ask and do
    not assert.
    """

    @property
    @abstractmethod
    def alphabet(self) -> Alphabet:
        """The letters, and what others mean."""

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(len(self.alphabet.letters))

    @property
    def letters(self) -> Sequence[str]:
        return tuple(self.alphabet.letters)

    def encode(self, value: str) -> list[int]:
        found = self.alphabet.fault(value)
        if found is not None:
            position, reason = found
            raise UserError(f"sequence {shown(value, 30)}, position {position + 1}: {reason}")
        ids = {letter: index for index, letter in enumerate(self.alphabet.letters)}
        return [ids[letter] for letter in value]

    def decode(self, ids: Sequence[int], context: Any = None) -> str:
        letters = self.alphabet.letters
        for position, token in enumerate(ids, start=1):
            if not 0 <= token < len(letters):
                raise UserError(f"position {position}: id {token} is not a {self.alphabet.noun}")
        return "".join(letters[token] for token in ids)

    def canonical(self, value: str) -> str:
        return self.alphabet.canonical(value)

    def settings(self) -> Mapping[str, Any]:
        return {}

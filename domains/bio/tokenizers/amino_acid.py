"""One token a residue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from core.errors import UserError
from core.registry import Paper
from core.tokenizers.base import Tokenizer, Vocabulary
from domains.base import shown
from domains.bio.alphabet import AMBIGUITY, AMINO_ACIDS, fault

_IDS = {letter: index for index, letter in enumerate(AMINO_ACIDS)}


class AminoAcid(Tokenizer[str]):
    """The 20 residues in the order ACDEFGHIKLMNPQRSTVWY.

    Ambiguity policy: an ambiguous letter is refused, never resolved, because no choice of ours
    would be the user's data; `ambiguity` says what each stands for in motifs, which ask and do
    not assert. Termini are free: caps are written by no letter, and readers take them off when told.
    """

    paper = Paper("ours", "IUPAC-IUBMB one-letter residue codes")
    ambiguity: ClassVar[Mapping[str, frozenset[str]]] = AMBIGUITY

    @property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary(len(AMINO_ACIDS))

    @property
    def letters(self) -> Sequence[str]:
        return tuple(AMINO_ACIDS)

    def encode(self, value: str) -> list[int]:
        found = fault(value)
        if found is not None:
            position, reason = found
            raise UserError(f"sequence {shown(value, 30)}, position {position + 1}: {reason}")
        return [_IDS[letter] for letter in value]

    def decode(self, ids: Sequence[int], context: Any = None) -> str:
        for position, token in enumerate(ids, start=1):
            if not 0 <= token < len(AMINO_ACIDS):
                raise UserError(f"position {position}: id {token} is not a residue")
        return "".join(AMINO_ACIDS[token] for token in ids)

    def settings(self) -> Mapping[str, Any]:
        return {}

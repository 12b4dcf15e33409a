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
        if not isinstance(value, str):
            raise UserError(f"a peptide is text, got {type(value).__name__}")
        found = fault(value)
        if found is not None:
            position, reason = found
            raise UserError(f"sequence {shown(value, 30)}, position {position + 1}: {reason}")
        return [_IDS[letter] for letter in value]

    def decode(self, ids: Sequence[int], context: Any = None) -> str:
        written = []
        for position, token in enumerate(ids):
            try:
                index = token.__index__()
            except (AttributeError, TypeError):
                raise UserError(f"position {position + 1}: {token!r} is not a token id") from None
            if not 0 <= index < len(AMINO_ACIDS):
                raise UserError(f"position {position + 1}: id {index} is not a residue")
            written.append(AMINO_ACIDS[index])
        return "".join(written)

    def settings(self) -> Mapping[str, Any]:
        return {}

"""One token a base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from core.registry import Paper
from domains.bio.alphabet import DNA, Alphabet
from domains.bio.tokenizers._letterwise import Letterwise


class Dna(Letterwise):
    """The 4 bases in the order ACGT, one strand from its 5' end; RNA is read as DNA only by readers told so."""

    paper = Paper("ours", "IUPAC-IUB one-letter nucleotide codes")
    kind = "dna"
    ambiguity: ClassVar[Mapping[str, frozenset[str]]] = DNA.ambiguity

    @property
    def alphabet(self) -> Alphabet:
        return DNA

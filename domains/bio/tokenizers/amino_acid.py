"""One token a residue."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from core.registry import Paper
from domains.bio.alphabet import PROTEIN, Alphabet
from domains.bio.tokenizers._letterwise import Letterwise


class AminoAcid(Letterwise):
    """The 20 residues in the order ACDEFGHIKLMNPQRSTVWY.

    Termini are free: caps are written by no letter, and readers take them off when told.
    """

    paper = Paper("ours", "IUPAC-IUBMB one-letter residue codes")
    kind = "protein"
    ambiguity: ClassVar[Mapping[str, frozenset[str]]] = PROTEIN.ambiguity

    @property
    def alphabet(self) -> Alphabet:
        return PROTEIN

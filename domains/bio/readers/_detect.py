"""Proteins, DNA and RNA told apart by the letters of a whole file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from core.errors import UserError
from domains.base import named
from domains.bio.alphabet import DNA, Alphabet

_NUCLEOTIDES = frozenset("ACGTUN")
_NUCLEOTIDE_SHARE = 0.95
# Codes of bases, of several bases, and U.
_CODES = _NUCLEOTIDES | frozenset(DNA.ambiguity)


def refuse_other_alphabets(file: str, sequences: Iterable[str], expected: Alphabet) -> None:
    """`UserError` where the letters of a file are those of another kind of sequence than `expected`."""
    letters = Counter[str]()
    for sequence in sequences:
        letters.update(sequence.upper())
    total = sum(count for letter, count in letters.items() if letter.isalpha())
    if not total:
        return
    bases = sum(letters[letter] for letter in _NUCLEOTIDES) / total
    kind = "RNA" if letters["U"] > letters["T"] else "DNA"
    if expected.kind == "protein" and bases >= _NUCLEOTIDE_SHARE:
        raise UserError(
            f"{named(file)}: {bases:.0%} of the letters are A, C, G, T, U or N, so this reads like {kind}, "
            f"not protein: translate it, or pass alphabet=protein if it is protein"
        )
    if expected.double and bases >= _NUCLEOTIDE_SHARE and kind == "RNA":
        raise UserError(
            f"{named(file)}: it holds U where DNA has T, so this reads like RNA, not DNA: "
            "pass alphabet=rna to read U as T"
        )
    coded = sum(letters[letter] for letter in _CODES) / total
    if expected.double and coded < _NUCLEOTIDE_SHARE:
        raise UserError(
            f"{named(file)}: {1 - coded:.0%} of the letters stand for no base, so this reads like protein, not DNA: "
            "translate it back, or pass alphabet=dna if it is DNA"
        )

"""The letters of proteins and of DNA, and what may be wrong with a sequence of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from core.tokenizers.base import Tokenizer

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
BASES = "ACGT"

_COMPLEMENT = str.maketrans("ACGTRYSWKMBDHVN", "TGCAYRSWMKVHDBN")


@dataclass(frozen=True, eq=False)
class Alphabet:
    """One kind of sequence.

    noun: what a letter is. ambiguity: codes that stand for several letters. foreign: what letters of
    other kinds are. readings: what a file may be said to hold, where it looks like something else.
    lower: what lower case may mean. double: whether a sequence has a second strand.
    """

    kind: str
    noun: str
    letters: str
    ambiguity: Mapping[str, frozenset[str]]
    foreign: Mapping[str, str]
    readings: tuple[str, ...]
    lower: str
    double: bool = field(default=False, kw_only=True)

    @cached_property
    def _other(self) -> re.Pattern[str]:
        return re.compile(f"[^{self.letters}]")

    def fault(self, sequence: str) -> tuple[int, str] | None:
        """Index and description of the first letter that is none of ours; None if all are."""
        found = self._other.search(sequence)
        return None if found is None else (found.start(), self._describe(found.group()))

    def canonical(self, sequence: str) -> str:
        """The same for a sequence and its reverse complement, where there is one."""
        return min(sequence, reverse_complement(sequence)) if self.double else sequence

    def _describe(self, letter: str) -> str:
        if letter in self.ambiguity:
            among = self.ambiguity[letter]
            meaning = f"any {self.noun}" if len(among) == len(self.letters) else " or ".join(sorted(among))
            return f"ambiguous letter {letter} ({meaning})"
        if letter in self.foreign:
            return f"letter {letter} {self.foreign[letter]}"
        if letter in "-.~":
            return f"gap {letter!r}"
        if letter == "*":
            return "stop '*'"
        if letter.isascii() and letter.islower():
            return f"lower case {letter!r} ({self.lower}): case=upper reads it as {letter.upper()}"
        return f"{letter!r} is not a {self.noun}"


# IUPAC-IUBMB one-letter codes.
PROTEIN = Alphabet(
    "protein",
    "residue",
    AMINO_ACIDS,
    {"B": frozenset("DN"), "J": frozenset("IL"), "X": frozenset(AMINO_ACIDS), "Z": frozenset("EQ")},
    {
        "O": "(pyrrolysine) is not one of the 20 residues",
        "U": "(selenocysteine) is not one of the 20 residues",
    },
    ("protein",),
    "soft mask or D-residue?",
)
DNA = Alphabet(
    "dna",
    "base",
    BASES,
    {
        "R": frozenset("AG"), "Y": frozenset("CT"), "S": frozenset("CG"), "W": frozenset("AT"), "K": frozenset("GT"),
        "M": frozenset("AC"), "B": frozenset("CGT"), "D": frozenset("AGT"), "H": frozenset("ACT"),
        "V": frozenset("ACG"), "N": frozenset(BASES),
    },
    {"U": "is RNA: alphabet=rna reads a file of RNA, U as T"},
    ("dna", "rna"),
    "soft mask?",
    double=True,
)  # fmt: skip


def reverse_complement(sequence: str) -> str:
    """The other strand, read from its 5' end; codes of several bases become those of their partners."""
    return sequence.translate(_COMPLEMENT)[::-1]


def alphabet_of(tokenizer: Tokenizer[Any] | None) -> Alphabet:
    """What a tokenizer's sequences are made of: proteins, unless it says otherwise."""
    return getattr(tokenizer, "alphabet", PROTEIN)

"""The letters of proteins and what may be wrong with one."""

from __future__ import annotations

import re
from collections.abc import Mapping

AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"

# IUPAC-IUBMB one-letter codes that stand for several residues.
AMBIGUITY: Mapping[str, frozenset[str]] = {
    "B": frozenset("DN"),
    "J": frozenset("IL"),
    "X": frozenset(AMINO_ACIDS),
    "Z": frozenset("EQ"),
}
_RARE = {"O": "pyrrolysine", "U": "selenocysteine"}
_FOREIGN = re.compile(f"[^{AMINO_ACIDS}]")


def fault(sequence: str) -> tuple[int, str] | None:
    """Index and description of the first letter that is none of the 20 residues; None if all are."""
    found = _FOREIGN.search(sequence)
    return None if found is None else (found.start(), _describe(found.group()))


def _describe(letter: str) -> str:
    if letter in AMBIGUITY:
        meaning = "any residue" if letter == "X" else " or ".join(sorted(AMBIGUITY[letter]))
        return f"ambiguous letter {letter} ({meaning})"
    if letter in _RARE:
        return f"letter {letter} ({_RARE[letter]}) is not one of the 20 residues"
    if letter in "-.~":
        return f"gap {letter!r}"
    if letter == "*":
        return "stop '*'"
    if letter.isascii() and letter.islower():
        return f"lower case {letter!r} (soft mask or D-residue?): case=upper reads it as {letter.upper()}"
    return f"{letter!r} is not a residue"

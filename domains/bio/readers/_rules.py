"""Which records of a protein file are read, the same for every format."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import UserError
from domains.base import ReadReport, Record, Skipped, named, shown
from domains.bio.alphabet import fault

_NUCLEOTIDES = frozenset("ACGTUN")
_NUCLEOTIDE_SHARE = 0.95
_N_CAP = re.compile(r"(Ac|H|H2N|For|pGlu)-(?=.)")
_C_CAP = re.compile(r"(?<=.)-(NH2|OH|OMe|COOH)$")
_UPPER = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_CHOICES = {
    "case": ("refuse", "upper"),
    "caps": ("refuse", "strip"),
    "on_bad": ("skip", "refuse"),
    "alphabet": ("detect", "protein"),
}


@dataclass(frozen=True)
class Rules:
    """What is done with records that are not plain sequences of the 20 residues.

    case: `upper` reads lower case as upper case. caps: `strip` takes written termini such as
    `Ac-` and `-NH2` off into the fields `n_cap` and `c_cap`. on_bad: whether a bad record is
    skipped and listed, or refuses the file. alphabet: `protein` asserts that a file which
    reads like DNA is protein all the same. max_length: the longest sequence that is read.
    """

    case: str = "refuse"
    caps: str = "refuse"
    on_bad: str = "skip"
    alphabet: str = "detect"
    max_length: int | None = None

    def __post_init__(self) -> None:
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise UserError(f"reader option {name}={getattr(self, name)!r}: known are {', '.join(known)}")
        longest: Any = self.max_length
        if longest is not None and not (isinstance(longest, int) and longest >= 1):
            raise UserError(f"reader option max_length={longest!r}: it must be a whole number of at least 1")

    def screen(
        self, file: str, found: Iterable[Record], unreadable: Iterable[Skipped], statements: Iterable[str]
    ) -> ReadReport:
        """The report on raw records: `found` as they stand in the file, `unreadable` lost to the format."""
        found = list(found)
        if self.alphabet == "detect":
            _refuse_nucleotides(file, found)
        told = list(statements)
        skipped = list(unreadable)
        if skipped and self.on_bad == "refuse":
            raise UserError(f"{skipped[0]}: mend it, or pass on_bad=skip")
        kept: list[Record] = []
        first: dict[str, str] = {}
        changed = Counter[str]()
        for raw in found:
            outcome = self._record(raw, first, told, changed)
            if isinstance(outcome, Record):
                first[outcome.value] = outcome.name
                kept.append(outcome)
                continue
            if self.on_bad == "refuse":
                raise UserError(f"{outcome}: mend it, or pass on_bad=skip")
            skipped.append(outcome)
        if not kept:
            reason = f"all {len(skipped)} records are unreadable, the first: {skipped[0]}" if skipped else "no records"
            raise UserError(f"{named(file)}: {reason}")
        if changed["case"]:
            told.append(f"{changed['case']} records held lower case, read as upper case as told")
        return ReadReport(tuple(kept), tuple(skipped), tuple(told))

    def _record(
        self, raw: Record, first: Mapping[str, str], told: list[str], changed: Counter[str]
    ) -> Record | Skipped:
        def bad(reason: str, position: int | None = None) -> Skipped:
            return Skipped(raw.file, raw.name, position, reason)

        value, fields, offset = raw.value, dict(raw.fields), 0
        n_cap, c_cap = _N_CAP.match(value), _C_CAP.search(value)
        if (n_cap or c_cap) and self.caps == "refuse":
            cap = n_cap or c_cap
            assert cap is not None
            return bad(f"written cap {cap.group()!r}: caps=strip takes it off", cap.start() + 1)
        if c_cap:
            value, fields["c_cap"] = value[: c_cap.start()], c_cap.group(1)
            told.append(f"record {shown(raw.name)}: C-terminal cap {c_cap.group()} taken off, as told")
        if n_cap:
            value, fields["n_cap"], offset = value[n_cap.end() :], n_cap.group(1), n_cap.end()
            told.append(f"record {shown(raw.name)}: N-terminal cap {n_cap.group()} taken off, as told")
        if self.case == "upper" and (upper := value.translate(_UPPER)) != value:
            value = upper
            changed["case"] += 1
        if not value:
            return bad("the sequence is empty")
        wrong = fault(value)
        if wrong is not None:
            return bad(wrong[1], wrong[0] + 1 + offset)
        if self.max_length is not None and len(value) > self.max_length:
            return bad(f"{len(value)} residues, more than max_length={self.max_length}", self.max_length + 1)
        if value in first:
            return bad(f"duplicate: the same sequence as record {shown(first[value])}")
        return raw if value is raw.value else Record(raw.name, value, fields, raw.file, raw.line)


STRICT = Rules()


def _refuse_nucleotides(file: str, found: list[Record]) -> None:
    letters = Counter[str]()
    for record in found:
        letters.update(record.value.translate(_UPPER))
    total = sum(count for letter, count in letters.items() if letter.isalpha())
    bases = sum(letters[base] for base in _NUCLEOTIDES)
    if total and bases >= _NUCLEOTIDE_SHARE * total:
        kind = "RNA" if letters["U"] > letters["T"] else "DNA"
        raise UserError(
            f"{named(file)}: {bases / total:.0%} of the letters are A, C, G, T, U or N, so this reads like {kind}, "
            f"not protein: translate it, or pass alphabet=protein if it is protein"
        )

"""Which records of a file of sequences are read, the same for every format."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from core.errors import UserError
from domains.base import ReadReport, Record, Skipped, named, shown
from domains.bio.alphabet import PROTEIN, Alphabet
from domains.bio.readers._detect import refuse_other_alphabets

_N_CAP = re.compile(r"(Ac|H|H2N|For|pGlu)-(?=.)")
_C_CAP = re.compile(r"(?<=.)-(NH2|OH|OMe|COOH)$")
_UPPER = str.maketrans("abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_TO_DNA = str.maketrans("Uu", "Tt")
_CHOICES = {
    "case": ("refuse", "upper"),
    "caps": ("refuse", "strip"),
    "on_bad": ("skip", "refuse"),
}


@dataclass(frozen=True)
class Rules:
    """What is done with records that are not plain sequences of the letters expected.

    case: `upper` reads lower case as upper case. caps: `strip` takes written termini such as
    `Ac-` and `-NH2` off into the fields `n_cap` and `c_cap`. on_bad: whether a bad record is
    skipped and listed, or refuses the file. alphabet: `protein` or `dna` asserts that a file which
    reads like something else is that all the same; `rna` reads U as T where DNA is expected.
    max_length: the longest sequence that is read. expected: what the task's sequences are made of.
    A record's source is held to the same, and records are duplicates where both are the same.
    """

    case: str = "refuse"
    caps: str = "refuse"
    on_bad: str = "skip"
    alphabet: str = "detect"
    max_length: int | None = None
    expected: Alphabet = PROTEIN

    def __post_init__(self) -> None:
        for name, known in {**_CHOICES, "alphabet": ("detect", *self.expected.readings)}.items():
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
            refuse_other_alphabets(file, [record.value for record in found], self.expected)
            refuse_other_alphabets(file, [record.source for record in found if record.source], self.expected)
        told = list(statements)
        skipped = list(unreadable)
        if skipped and self.on_bad == "refuse":
            raise UserError(f"{skipped[0]}: mend it, or pass on_bad=skip")
        kept: list[Record] = []
        first: dict[tuple[str, str | None], str] = {}
        changed = {"records": Counter[str](), "sources": Counter[str]()}
        for raw in found:
            outcome = self._pair(raw, told, changed)
            if isinstance(outcome, Record):
                outcome = _once(outcome, first)
            if isinstance(outcome, Record):
                kept.append(outcome)
                continue
            if self.on_bad == "refuse":
                raise UserError(f"{outcome}: mend it, or pass on_bad=skip")
            skipped.append(outcome)
        if not kept:
            reason = f"all {len(skipped)} records are unreadable, the first: {skipped[0]}" if skipped else "no records"
            raise UserError(f"{named(file)}: {reason}")
        for noun, counts in changed.items():
            if counts["case"]:
                told.append(f"{counts['case']} {noun} held lower case, read as upper case as told")
            if counts["rna"]:
                told.append(f"{counts['rna']} {noun} were read as RNA, U as T, as told")
        return ReadReport(tuple(kept), tuple(skipped), tuple(told))

    def _pair(self, raw: Record, told: list[str], changed: Mapping[str, Counter[str]]) -> Record | Skipped:
        """A record and the source that it may have."""
        outcome = self._record(raw, told, changed["records"])
        if isinstance(outcome, Skipped) or raw.source is None:
            return outcome
        source = self._record(
            Record(f"{raw.name}, source", raw.source, {}, raw.file, raw.line), told, changed["sources"]
        )
        if isinstance(source, Skipped):
            return _bad(raw, f"source: {source.reason}", source.position)
        return replace(outcome, source=source.value)

    def _record(self, raw: Record, told: list[str], changed: Counter[str]) -> Record | Skipped:
        value, fields, offset = raw.value, dict(raw.fields), 0
        n_cap, c_cap = _N_CAP.match(value), _C_CAP.search(value)
        if (n_cap or c_cap) and self.caps == "refuse":
            cap = n_cap or c_cap
            assert cap is not None
            return _bad(raw, f"written cap {cap.group()!r}: caps=strip takes it off", cap.start() + 1)
        if c_cap:
            value, fields["c_cap"] = value[: c_cap.start()], c_cap.group(1)
            told.append(f"record {shown(raw.name)}: C-terminal cap {c_cap.group()} taken off, as told")
        if n_cap:
            value, fields["n_cap"], offset = value[n_cap.end() :], n_cap.group(1), n_cap.end()
            told.append(f"record {shown(raw.name)}: N-terminal cap {n_cap.group()} taken off, as told")
        if self.case == "upper" and (upper := value.translate(_UPPER)) != value:
            value = upper
            changed["case"] += 1
        if self.alphabet == "rna" and (written := value.translate(_TO_DNA)) != value:
            mixed = re.search("[Tt]", value)
            if mixed is not None:
                return _bad(raw, f"letter {mixed.group()} beside U: neither RNA nor DNA", mixed.start() + 1 + offset)
            value = written
            changed["rna"] += 1
        if not value:
            return _bad(raw, "the sequence is empty")
        wrong = self.expected.fault(value)
        if wrong is not None:
            return _bad(raw, wrong[1], wrong[0] + 1 + offset)
        if self.max_length is not None and len(value) > self.max_length:
            reason = f"{len(value)} {self.expected.noun}s, more than max_length={self.max_length}"
            return _bad(raw, reason, self.max_length + 1)
        return raw if value is raw.value else replace(raw, value=value, fields=fields)


def _once(record: Record, first: dict[tuple[str, str | None], str]) -> Record | Skipped:
    """The record, unless an earlier one is the same; `first` holds the names of all that were let through."""
    key = record.value, record.source
    if key in first:
        return _bad(record, f"duplicate: the same sequence as record {shown(first[key])}")
    first[key] = record.name
    return record


def _bad(raw: Record, reason: str, position: int | None = None) -> Skipped:
    return Skipped(raw.file, raw.name, position, reason)


STRICT = Rules()

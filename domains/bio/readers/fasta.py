"""FASTA, plain or gzip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from core.errors import UserError
from core.registry import Paper
from domains.base import Reader, ReadReport, Record, named
from domains.bio.readers._rules import STRICT, Rules
from domains.bio.readers._text import read_text


class Fasta(Reader):
    """The first word of a header is the record's name, the whole header its field `description`.

    Lines that start with `;` are comments.
    """

    paper = Paper("ours", "Pearson and Lipman 1988, Improved tools for biological sequence comparison")
    suffixes = (".fasta", ".fa", ".faa", ".fas", ".pep", ".a3m")

    def __init__(self, rules: Rules = STRICT, encoding: str = "utf-8") -> None:
        self.rules = rules
        self.encoding = encoding

    @staticmethod
    def recognises(head: str) -> bool:
        return head.startswith(">")

    def read(self, path: str | Path) -> ReadReport:
        text, statements = read_text(path, self.encoding)
        lines = text.split("\n")
        comments = sum(line.startswith(";") for line in lines)
        if comments:
            statements.append(f"{comments} comment lines were passed over")
        records = list(_records(str(path), lines))
        nameless = sum(not record.fields["description"] for record in records)
        if nameless:
            statements.append(f"{nameless} headers are empty: those records are named by their number")
        return self.rules.screen(str(path), records, (), statements)


def _records(file: str, lines: list[str]) -> Iterator[Record]:
    header, start, number = "", 0, 0
    pieces: list[str] = []

    def close() -> Record:
        name = header.split(maxsplit=1)[0] if header else str(number)
        return Record(name, "".join(pieces), {"description": header}, file, start)

    for line_number, line in enumerate(lines, start=1):
        if line.startswith(">"):
            if number:
                yield close()
            header, start, number, pieces = line[1:].strip(), line_number, number + 1, []
        elif line.strip() and not line.startswith(";"):
            if not number:
                raise UserError(
                    f"{named(file)}: line {line_number} comes before any header: a FASTA record starts with a '>' line"
                )
            pieces.append(line.strip())
    if not number:
        raise UserError(f"{named(file)}: no header: a FASTA record starts with a '>' line")
    yield close()

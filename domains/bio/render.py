"""Samples as files and pictures."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.evaluation.report.plots import histogram, sequence_logo
from core.evaluation.report.svg import Svg
from core.tokenizers.base import Tokenizer
from domains.base import guarded
from domains.bio.alphabet import PROTEIN, Alphabet, alphabet_of

_LINE = 60
# By kind of sequence: letters of one colour, grey first, and what to say of them.
_GROUPS = {
    "protein": (
        ("DE", "KRH", "NQST", "AVLIMFWY", "GPC"),
        "acidic grey, basic blue, polar green, hydrophobic orange, special (G, P, C) violet",
    ),
    "dna": (("", "C", "A", "G", "T"), "A green, C blue, G orange, T violet"),
    "state": ((), "all of one colour"),
}


def write_fasta(
    path: str | Path,
    names: Sequence[str],
    sequences: Sequence[str],
    tokenizer: Tokenizer[Any] | None = None,
) -> None:
    """One record a sequence."""
    alphabet = alphabet_of(tokenizer)
    lines: list[str] = []
    for row, (name, sequence) in enumerate(zip(names, sequences, strict=True)):
        if not sequence or alphabet.fault(sequence) is not None:
            raise ValueError(f"row {row}: {sequence!r} is not a sequence of {alphabet.noun}s")
        lines.append(f">{_word(name) or row + 1}")
        lines.extend(sequence[i : i + _LINE] for i in range(0, len(sequence), _LINE))
    _replace(path, "".join(line + "\n" for line in lines))


def write_table(path: str | Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """A CSV, one row a sample. NaN is an empty cell, truth is 1 or 0, and no text is a formula to a spreadsheet."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow([_cell(name) for name in columns])
    writer.writerows([_cell(value) for value in row] for row in zip(*columns.values(), strict=True))
    _replace(path, written.getvalue())


def pictures(
    sequences: Sequence[str], real: Sequence[str], tokenizer: Tokenizer[Any] | None = None
) -> list[tuple[Svg, str]]:
    """What sequences look like, each drawing with its caption; `real` stand beside them."""
    alphabet = alphabet_of(tokenizer)
    lengths = [[len(sequence) for sequence in group] for group in (sequences, real)]
    names = ("samples", "real test sequences")
    return [
        (histogram(lengths[0], "Length", f"length ({alphabet.noun}s)", lengths[1], names), "How long sequences are."),
        (
            logo(sequences, alphabet),
            f"Letters by position from the first {alphabet.noun}: {_GROUPS[alphabet.kind][1]}. Places that fewer than "
            "half of the samples reach are left out.",
        ),
    ]


def logo(sequences: Sequence[str], alphabet: Alphabet = PROTEIN, positions: int = 60) -> Svg:
    """Letters of the first `positions` places of left-aligned sequences, coloured by kind.

    Places that fewer than half of the sequences reach are left out.
    """
    lengths = np.array([len(s) for s in sequences])
    reach = int(np.median(lengths)) if len(lengths) else 0
    counts = np.zeros((min(positions, reach), len(alphabet.letters)))
    for sequence in sequences:
        for place, letter in enumerate(sequence[: len(counts)]):
            counts[place, alphabet.letters.index(letter)] += 1
    frequencies = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    groups = {letter: group for group, letters in enumerate(_GROUPS[alphabet.kind][0]) for letter in letters}
    return sequence_logo(frequencies, alphabet.letters, "Letters by position", groups)


def _word(text: str) -> str:
    """Text as one word of a FASTA header."""
    return "_".join("".join(c if c.isprintable() else " " for c in text).split())


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return guarded(value)
    number = float(value)
    return "" if math.isnan(number) else str(int(number)) if number.is_integer() else f"{number:.6g}"


def _replace(path: str | Path, text: str) -> None:
    """Writes under a temporary name, then moves, so that a reader never sees half a file."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, path)

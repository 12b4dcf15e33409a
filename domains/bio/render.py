"""Samples as files and pictures."""

from __future__ import annotations

import csv
import html
import io
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from domains.bio.alphabet import AMINO_ACIDS, fault

_LINE = 60
_BITS = math.log2(len(AMINO_ACIDS))
# Acidic, basic, polar, hydrophobic, special: readable on white and on black.
_COLOURS = {letter: colour for letters, colour in (
    ("DE", "#d1495b"), ("KRH", "#3d7edb"), ("NQST", "#2f9e6e"), ("AVLIMFWY", "#a0742d"), ("GPC", "#9a5fc0"),
) for letter in letters}  # fmt: skip


def write_fasta(
    path: str | Path,
    names: Sequence[str],
    sequences: Sequence[str],
    scores: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """One record a sequence, its scores in the header as `key=value`."""
    columns = dict(scores or {})
    lines: list[str] = []
    for row, (name, sequence) in enumerate(zip(names, sequences, strict=True)):
        if not sequence or fault(sequence) is not None:
            raise ValueError(f"row {row}: {sequence!r} is not a sequence of residues")
        parts = [_word(name) or str(row + 1), *(f"{_word(key)}={column[row]:.6g}" for key, column in columns.items())]
        lines.append(">" + " ".join(parts))
        lines.extend(sequence[i : i + _LINE] for i in range(0, len(sequence), _LINE))
    _replace(path, "".join(line + "\n" for line in lines))


def write_table(path: str | Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """A CSV, one row a sample. NaN is an empty cell, truth is 1 or 0, and no text is a formula to a spreadsheet."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    writer.writerow([_cell(name) for name in columns])
    writer.writerows([_cell(value) for value in row] for row in zip(*columns.values(), strict=True))
    _replace(path, written.getvalue())


def sequence_logo(sequences: Sequence[str], positions: int = 30, title: str = "Sequence logo") -> str:
    """Inline SVG of the first `positions` places of left-aligned sequences.

    Letter heights are frequency times information content, log2(20) - H - (20 - 1) / (2 n ln 2), as
    in Schneider and Stephens 1990, n being the number of sequences that reach the place.
    """
    reach = min(positions, max((len(s) for s in sequences), default=0))
    cell, height, left, bottom = 20.0, 120.0, 34.0, 18.0
    width = left + cell * max(reach, 1) + 6
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="logo" role="img" '
        f'viewBox="0 0 {width:g} {height + bottom + 8:g}" width="{width:g}">',
        f"<title>{html.escape(title)}</title>",
        f'<g font-size="9" fill="currentColor" text-anchor="end">'
        f'<text x="{left - 5}" y="10">{_BITS:.1f}</text><text x="{left - 5}" y="{height + 4}">0</text>'
        f'<text x="{left - 5}" y="{height / 2 + 4}">bits</text></g>',
        f'<path d="M{left - 2} 4V{height + 4}H{width - 4}" fill="none" stroke="currentColor" stroke-width="0.7"/>',
    ]
    for place in range(reach):
        x = left + place * cell
        base = float(height + 4)
        for letter, bits in letter_heights([s[place] for s in sequences if len(s) > place]):
            tall = bits / _BITS * height
            drawn.append(_glyph(letter, x, base, cell, tall))
            base -= tall
        if place == 0 or (place + 1) % 5 == 0:
            drawn.append(
                f'<text x="{x + cell / 2}" y="{height + bottom}" font-size="9" fill="currentColor" '
                f'text-anchor="middle">{place + 1}</text>'
            )
    return "".join((*drawn, "</svg>"))


def letter_heights(column: Sequence[str]) -> list[tuple[str, float]]:
    """Letters of one place with their heights in bits, the smallest first."""
    counts = Counter(column)
    n = len(column)
    if n == 0:
        return []
    entropy = -sum(c / n * math.log2(c / n) for c in counts.values())
    correction = (len(AMINO_ACIDS) - 1) / (2 * n * math.log(2))
    information = max(0.0, _BITS - entropy - correction)
    ranked = sorted(counts.items(), key=lambda item: (item[1], item[0]))
    return [(letter, count / n * information) for letter, count in ranked]


def _glyph(letter: str, x: float, base: float, wide: float, tall: float) -> str:
    """A capital stretched to a box; in common fonts it is 0.72 of its font size tall."""
    if tall < 0.3:
        return ""
    colour = _COLOURS.get(letter, "#808080")
    return (
        f'<text transform="translate({x:.1f} {base:.2f}) scale(1 {tall / 14.4:.4f})" font-size="20" font-weight="700" '
        f'font-family="sans-serif" textLength="{wide - 2}" lengthAdjust="spacingAndGlyphs" fill="{colour}">'
        f"{html.escape(letter)}</text>"
    )


def _word(text: str) -> str:
    """Text as one word of a FASTA header."""
    return "_".join("".join(c if c.isprintable() else " " for c in text).split())


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value if value.startswith(("=", "+", "-", "@", "\t", "\r")) and not _is_number(value) else value
    number = float(value)
    return "" if math.isnan(number) else str(int(number)) if number.is_integer() else f"{number:.6g}"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _replace(path: str | Path, text: str) -> None:
    """Writes under a temporary name, then moves, so that a reader never sees half a file."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8", newline="\n")
    os.replace(partial, path)

"""The page that every run leaves behind."""

from __future__ import annotations

import base64
import hashlib
import math
import os
from collections.abc import Collection, Mapping, Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from core.evaluation.report._assets import SCRIPT, STYLE
from core.evaluation.report.svg import Svg

_Plain = str | int | float | bool | None
Cell = _Plain | np.generic


class Report:
    """A self-contained HTML page, built from top to bottom.

    Every string that comes in is escaped. The content policy admits nothing but the page's own
    style sheet and script, each by its hash, so that no string can load or run anything. The
    same calls give the same bytes.
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self._sections: list[tuple[str, list[str]]] = [("", [])]
        self._plots = 0

    def section(self, title: str) -> Report:
        """Starts a section; what follows belongs to it."""
        self._sections.append((title, []))
        return self

    def text(self, *paragraphs: str) -> Report:
        """Plain paragraphs."""
        return self._add("".join(f"<p>{escape(paragraph)}</p>" for paragraph in paragraphs))

    def bullets(self, *lines: str) -> Report:
        """A plain list."""
        return self._add(f'<ul class="bullets">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>')

    def facts(self, values: Mapping[str, Cell]) -> Report:
        """A few named values at a glance."""
        pairs = "".join(f"<div><dt>{escape(k)}</dt><dd>{_shown(v)}</dd></div>" for k, v in values.items())
        return self._add(f'<dl class="facts">{pairs}</dl>')

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Cell]],
        sortable: bool = True,
        caption: str = "",
        monospace: Collection[str] = (),
        checks: Collection[str] = (),
    ) -> Report:
        """A table in its own scrolling box.

        Columns of numbers align right under one number of decimals, flags show as yes and no.
        Columns named in `monospace` are set as sequences; in those named in `checks` a no is a fault.
        """
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"a row has {len(row)} cells under {len(columns)} columns: {row!r}")
        cells = [[_plain(value) for value in row] for row in rows]
        kinds = [
            "m" if name in monospace else "c" if name in checks else _kind([row[i] for row in cells])
            for i, name in enumerate(columns)
        ]
        decimals = [_decimals([row[i] for row in cells]) for i in range(len(columns))]
        heads = "".join(
            f'<th scope="col"{_class("n" if kind == "n" else "")}>{escape(name)}</th>'
            for name, kind in zip(columns, kinds, strict=True)
        )
        body = "".join("<tr>" + "".join(map(_cell, row, kinds, decimals)) + "</tr>\n" for row in cells)
        label = escape(caption or " / ".join(columns))
        return self._add(
            f'<figure class="table">{_caption(caption)}'
            f'<div class="scroll" tabindex="0" role="region" aria-label="{label}">'
            f"<table{_class('sortable' if sortable else '')}><thead><tr>{heads}</tr></thead>\n"
            f"<tbody>{body}</tbody></table></div></figure>"
        )

    def figure(self, svg: Svg | Sequence[Svg], caption: str = "") -> Report:
        """One drawing, or several side by side where the screen is wide enough."""
        drawings = [svg] if isinstance(svg, Svg) else list(svg)
        boxes = []
        for drawing in drawings:
            self._plots += 1
            kind = "plot wide" if drawing.width > 480 else "plot"
            boxes.append(f'<div class="{kind}">{drawing.render(f"plot{self._plots}")}</div>')
        inner = boxes[0] if len(boxes) == 1 else f'<div class="plots">{"".join(boxes)}</div>'
        return self._add(f"<figure>{inner}{_caption(caption)}</figure>")

    def links(self, files: Mapping[str, str]) -> Report:
        """Links by label to files beside the report; only relative paths."""
        items = []
        for label, path in files.items():
            if path.startswith("/"):
                raise ValueError(f"{path}: a report links only to files beside it")
            # Quoting leaves no colon, hence no scheme.
            items.append(f'<li><a href="./{escape(quote(path))}">{escape(label)}</a></li>')
        return self._add(f'<ul class="files">{"".join(items)}</ul>')

    def render(self) -> str:
        """The whole page."""
        policy = (
            f"default-src 'none'; style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}; "
            "base-uri 'none'; form-action 'none'"
        )
        titled = [(f"s{i}", title) for i, (title, _) in enumerate(self._sections) if title]
        navigation = "".join(f'<a href="#{key}">{escape(title)}</a>' for key, title in titled)
        body = []
        for i, (title, parts) in enumerate(self._sections):
            if title:
                body.append(f'<section id="s{i}"><h2>{escape(title)}</h2>{"".join(parts)}</section>')
            elif parts:
                body.append(f"<section>{''.join(parts)}</section>")
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{escape(policy, quote=False)}">\n'
            '<meta name="referrer" content="no-referrer">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{escape(self.title)}</title>\n<style>{STYLE}</style></head>\n<body>"
            f"<header><h1>{escape(self.title)}</h1>"
            + (f'<p class="subtitle">{escape(self.subtitle)}</p>' if self.subtitle else "")
            + (f'<nav aria-label="Sections">{navigation}</nav>' if len(titled) > 2 else "")
            + f"</header>\n<main>{chr(10).join(body)}</main>\n<script>{SCRIPT}</script></body></html>\n"
        )

    def write(self, path: Path | str) -> None:
        """Writes the page under a temporary name and moves it, so that half a page never stands."""
        target = Path(path)
        temporary = target.with_name(f".{target.name}.part")
        # A lone surrogate, as from a mangled file name, becomes a question mark.
        temporary.write_bytes(self.render().encode("utf-8", errors="replace"))
        os.replace(temporary, target)

    def _add(self, part: str) -> Report:
        self._sections[-1][1].append(part + "\n")
        return self


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _caption(text: str) -> str:
    return f"<figcaption>{escape(text)}</figcaption>" if text else ""


def _plain(value: Cell) -> _Plain:
    return value.item() if isinstance(value, np.generic) else value


def _kind(values: Sequence[_Plain]) -> str:
    """The column's class: numbers, text long enough to wrap, or neither."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known):
        return "n"
    return "w" if any(isinstance(value, str) and len(value) > 28 for value in known) else ""


def _decimals(values: Sequence[_Plain]) -> int | None:
    """Decimals that show four digits of a column's largest number, None where that would hide a small one."""
    sizes = [abs(value) for value in values if isinstance(value, float) and math.isfinite(value) and value]
    if not sizes or max(sizes) >= 1e7:
        return None
    decimals = max(3 - math.floor(math.log10(max(sizes))), 0)
    return decimals if decimals <= 6 and min(sizes) >= 0.5 * 10.0**-decimals else None


def _shown(value: Cell, decimals: int | None = None) -> str:
    plain = _plain(value)
    if plain is None:
        return ""
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    if isinstance(plain, float):
        if not math.isfinite(plain):
            return "n/a" if math.isnan(plain) else str(plain)
        return f"{plain:.4g}" if decimals is None else f"{plain:.{decimals}f}"
    return escape(str(plain))


def _cell(value: _Plain, kind: str, decimals: int | None) -> str:
    if isinstance(value, bool):
        kind = ("yes" if value else "no") if kind == "c" else "" if value else "off"
    return f"<td{_class('' if kind == 'c' else kind)}>{_shown(value, decimals)}</td>"

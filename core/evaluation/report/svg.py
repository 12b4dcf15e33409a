"""Inline SVG whose every user string is escaped and whose colours come from the page's style."""

from __future__ import annotations

import math
from html import escape
from typing import Literal

import numpy as np
from jaxtyping import Float

Anchor = Literal["start", "middle", "end"]


def number(value: float) -> str:
    """A coordinate with one decimal, which keeps files small and the same everywhere."""
    text = f"{value:.1f}"
    text = text[:-2] if text.endswith(".0") else text
    return "0" if text == "-0" else text


class Svg:
    """A drawing of a fixed viewBox, described for screen readers by its title and description.

    Marks carry class names of the report's style sheet (`style` in `_assets.py`), never colours,
    so that light and dark both work. `kind` is such a class; several are separated by spaces.
    """

    def __init__(self, width: float, height: float, title: str, description: str) -> None:
        self.width = width
        self.height = height
        self.title = title
        self.description = description
        self._parts: list[str] = []

    def rectangle(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        self._parts.append(
            f'<rect class="{escape(kind)}" x="{number(x)}" y="{number(y)}" '
            f'width="{number(max(width, 0.0))}" height="{number(max(height, 0.0))}"/>'
        )

    def polyline(self, x: Float[np.ndarray, " N"], y: Float[np.ndarray, " N"], kind: str) -> None:
        points = " ".join(f"{number(a)},{number(b)}" for a, b in zip(x.tolist(), y.tolist(), strict=True))
        self._parts.append(f'<polyline class="{escape(kind)}" points="{points}"/>')

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self._parts.append(f'<path class="{escape(kind)}" d="M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}"/>')

    def dots(self, x: Float[np.ndarray, " N"], y: Float[np.ndarray, " N"], kind: str) -> None:
        """One path for all: a round-capped stroke of no length is a dot, and takes a dozen bytes."""
        marks = "".join(
            f"M{number(a)} {number(b)}h0"
            for a, b in zip(x.tolist(), y.tolist(), strict=True)
            if math.isfinite(a) and math.isfinite(b)
        )
        if marks:
            self._parts.append(f'<path class="{escape(kind)}" d="{marks}"/>')

    def text(
        self, x: float, y: float, content: str, kind: str = "label", anchor: Anchor = "start", upright: bool = False
    ) -> None:
        """A line of text; `upright` turns it to read from below."""
        turn = f' transform="rotate(-90 {number(x)} {number(y)})"' if upright else ""
        self._parts.append(
            f'<text class="{escape(kind)}" x="{number(x)}" y="{number(y)}" text-anchor="{anchor}"{turn}>'
            f"{escape(content)}</text>"
        )

    def glyph(self, x: float, y: float, width: float, height: float, letter: str, kind: str) -> None:
        """A letter stretched to a box whose lower left corner is (x, y), for sequence logos."""
        # The style sets such letters at 10 units: capitals are about 7.3 high, and made 7 wide, W as I.
        self._parts.append(
            f'<text class="glyph {escape(kind)}" text-anchor="middle" textLength="7" lengthAdjust="spacingAndGlyphs" '
            f'transform="translate({number(x + width / 2)} {number(y)}) scale({width / 7:.3f} {height / 7.3:.3f})">'
            f"{escape(letter)}</text>"
        )

    def render(self, identifier: str) -> str:
        """The element; `identifier` must be its own within the page."""
        key = escape(identifier)
        return (
            f'<svg viewBox="0 0 {number(self.width)} {number(self.height)}" '
            f'width="{number(self.width)}" role="img" aria-labelledby="{key}-t {key}-d">'
            f'<title id="{key}-t">{escape(self.title)}</title><desc id="{key}-d">{escape(self.description)}</desc>'
            f"{''.join(self._parts)}</svg>"
        )

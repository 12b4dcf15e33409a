"""The plots of a report: scatter matrix, histogram, bars and sequence logo."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import ArrayLike

from core.evaluation.report.svg import Svg

_Vector = Float[np.ndarray, " N"]


class _Scale(NamedTuple):
    """Maps data `low..high` to the screen `start..end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, values: _Vector) -> _Vector:
        return self.start + (values - self.low) / (self.high - self.low) * (self.end - self.start)

    def at(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def _range(*columns: Float[np.ndarray, " _"]) -> tuple[float, float]:
    """What holds all finite values, with a little air; never empty."""
    values = np.concatenate([column[np.isfinite(column)] for column in columns])
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    air = (high - low) * 0.04 or max(abs(low), 1.0) * 0.5
    return low - air, high + air


def ticks(low: float, high: float, target: int = 4) -> list[float]:
    """Round values within `low..high`, about `target` of them, in steps of 1, 2 or 5."""
    raw = (high - low) / target
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((m * power for m in (1, 2, 5) if m * power >= raw * 0.999), 10 * power)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _label(value: float) -> str:
    return f"{0.0 if abs(value) < 1e-12 else value:.4g}"


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _bins(values: _Vector, reference: Float[np.ndarray, " R"]) -> Float[np.ndarray, " E"]:
    """Common edges: Freedman and Diaconis, between 8 and 32 bins."""
    low, high = _range(values, reference)
    both = [column[np.isfinite(column)] for column in (values, reference)]
    longest = max(both, key=len)
    if not len(longest):
        return np.linspace(low, high, 9)
    spread = float(np.subtract(*np.quantile(longest, [0.75, 0.25])))
    width = 2 * spread / len(longest) ** (1 / 3)
    count = math.ceil((high - low) / width) if width > 0 else 16
    return np.linspace(low, high, min(max(count, 8), 32) + 1)


def _shares(values: _Vector, edges: Float[np.ndarray, " E"]) -> Float[np.ndarray, " K"]:
    counts = np.histogram(values[np.isfinite(values)], edges)[0].astype(np.float64)
    return counts / max(counts.sum(), 1.0)


def _draw_histogram(
    svg: Svg, values: _Vector, reference: Float[np.ndarray, " R"], x: _Scale, bottom: float, top: float
) -> None:
    edges = _bins(values, reference)
    own, other = _shares(values, edges), _shares(reference, edges)
    peak = max(float(own.max()), float(other.max()), 1e-12)
    screen = x(np.clip(edges, x.low, x.high))
    for left, right, share in zip(screen[:-1], screen[1:], own, strict=True):
        if share:
            height = (bottom - top) * share / peak
            svg.rectangle(left + 0.4, bottom - height, right - left - 0.8, height, "fill")
    if other.any():
        heights = bottom - (bottom - top) * np.repeat(other, 2) / peak
        across = np.repeat(screen, 2)[1:-1]
        svg.polyline(
            np.concatenate([across[:1], across, across[-1:]]),
            np.concatenate([[bottom], heights, [bottom]]),
            "outline",
        )


def scatter_matrix(
    values: ArrayLike, names: Sequence[str], front: ArrayLike, title: str = "Scores of all samples, pair by pair"
) -> Svg:
    """Every pair of columns of `values` `[N, M]`; rows of the mask `front` stand out. Rows with a gap stay out."""
    table = np.asarray(values, dtype=np.float64)
    mask: Bool[np.ndarray, " N"] = np.asarray(front, dtype=bool)
    if table.ndim != 2 or table.shape[1] != len(names) or len(mask) != len(table):
        raise ValueError(f"{table.shape} values do not fit {len(names)} names and a mask of {len(mask)}")
    side = len(names)
    cell = min(300.0, 680.0 / max(side, 1))
    gap, left, top, below = 8.0, 44.0, 10.0, 24.0
    svg = Svg(
        left + side * cell,
        top + side * cell + below,
        title,
        f"{int(mask.sum())} of {len(table)} samples lie on the Pareto front of {', '.join(names)}.",
    )
    limits = [_range(column) for column in table.T]
    for row in range(side):
        y = _Scale(*limits[row], top + (row + 1) * cell - gap, top + row * cell)
        for column in range(row + 1):
            x = _Scale(*limits[column], left + column * cell, left + (column + 1) * cell - gap)
            if row == column:
                _draw_histogram(svg, table[:, row], table[:0, row], x, y.start, y.end + 0.24 * cell)
                svg.line(x.start, y.start, x.end, y.start, "axis")
                svg.text(x.start, y.end + 13, _shortened(names[row], int(cell / 7.5)), "name")
            else:
                svg.rectangle(x.start, y.end, x.end - x.start, y.start - y.end, "frame")
                svg.dots(x(table[~mask, column]), y(table[~mask, row]), "rest")
                svg.dots(x(table[mask, column]), y(table[mask, row]), "front")
            if column == 0 and row:
                for tick in ticks(y.low, y.high):
                    svg.text(left - 6, y.at(tick) + 3.5, _label(tick), "label", "end")
            if row == side - 1:
                for tick in ticks(x.low, x.high):
                    svg.text(x.at(tick), top + side * cell + 8, _label(tick), "label", "middle")
    if side > 1:
        x0, y0 = left + side * cell - gap, top + 12
        _legend(svg, x0, y0, (("front", "Pareto front"), ("rest", "dominated")))
    return svg


def _legend(svg: Svg, right: float, y: float, entries: Sequence[tuple[str, str]]) -> None:
    """One line an entry, about 66 units wide up to `right`."""
    x = right - 72
    for i, (kind, label) in enumerate(entries):
        level = y + 17 * i
        if kind in ("front", "rest"):
            svg.dots(np.array([x]), np.array([level - 4]), kind)
        elif kind == "outline":
            svg.line(x - 6, level - 4, x + 6, level - 4, kind)
        else:
            svg.rectangle(x - 5, level - 9, 10, 10, kind)
        svg.text(x + 11, level, label)


def histogram(samples: ArrayLike, name: str, reference: ArrayLike = (), unit: str = "") -> Svg:
    """The share of samples per bin as bars, over that of the reference as an outline."""
    own, other = np.asarray(samples, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    width, height, left, right = 400.0, 200.0, 8.0, 8.0
    top, bottom = 46.0, height - 26.0
    finite = own[np.isfinite(own)]
    median = f"median {_label(float(np.median(finite)))}" if len(finite) else "no value"
    svg = Svg(width, height, f"Distribution of {name}", f"{len(finite)} samples, {median} {unit}".strip() + ".")
    x = _Scale(*_range(own, other), left, width - right)
    _draw_histogram(svg, own, other, x, bottom, top)
    svg.line(left, bottom, width - right, bottom, "axis")
    for tick in ticks(x.low, x.high, 5):
        svg.line(x.at(tick), bottom, x.at(tick), bottom + 4, "axis")
        svg.text(x.at(tick), bottom + 17, _label(tick), "label", "middle")
    svg.text(left, 14, _shortened(f"{name} ({unit})" if unit else name, 30), "name")
    if len(other):
        _legend(svg, width - right, 13, (("fill", "samples"), ("outline", "reference")))
    return svg


def bar(
    values: Mapping[str, float],
    title: str,
    highlight: str | None = None,
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> Svg:
    """Horizontal bars from zero with their values; `highlight` names ours, `intervals` draws whiskers."""
    spread = intervals or {}
    finite = [v for v in values.values() if math.isfinite(v)] + [v for pair in spread.values() for v in pair]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    row, top, left, width = 27.0, 30.0, 140.0, 400.0
    svg = Svg(
        width,
        top + row * max(len(values), 1),
        title,
        "; ".join(f"{name}: {_label(value)}" for name, value in values.items()) + ".",
    )
    svg.text(0, 14, _shortened(title, 60), "name")
    x = _Scale(low, high if high > low else low + 1.0, left, width - 62)
    for i, (name, value) in enumerate(values.items()):
        y = top + i * row
        svg.text(left - 10, y + 14, _shortened(name, 22), "value" if name == highlight else "label", "end")
        end = x.at(0.0)
        if math.isfinite(value):
            start, end = sorted((x.at(0.0), x.at(value)))
            svg.rectangle(start, y + 2, end - start, row - 11, "bar" if name == highlight else "quiet")
        if name in spread:
            near, far = (x.at(bound) for bound in spread[name])
            svg.line(near, y + 10, far, y + 10, "whisker")
            end = max(end, far)
        svg.text(end + 7, y + 14, _label(value) if math.isfinite(value) else "n/a", "value")
    svg.line(x.at(0.0), top, x.at(0.0), top + row * len(values) - 6, "axis")
    return svg


def sequence_logo(
    frequencies: Float[np.ndarray, "L V"], letters: str, title: str, groups: Mapping[str, int] | None = None
) -> Svg:
    """Letters stacked by frequency, each stack as high as its information in bits (Schneider and Stephens 1990).

    `groups` gives letters one of the colours 0 to 4.
    """
    length, size = frequencies.shape
    if size != len(letters):
        raise ValueError(f"{size} columns do not fit {len(letters)} letters")
    wide, top, left, full = max(10.0, min(24.0, 640.0 / max(length, 1))), 26.0, 30.0, 110.0
    logs = np.log2(np.where(frequencies > 0, frequencies, 1.0))
    information = np.maximum(math.log2(size) + (frequencies * logs).sum(axis=1), 0.0)
    peak = max(float(information.max(initial=0.0)), 1e-9)
    svg = Svg(left + wide * length + 6, top + full + 20, title, f"Information per position, at most {peak:.2f} bits.")
    svg.text(0, 13, title, "name")
    for tick in ticks(0.0, peak, 3):
        y = top + full * (1 - tick / peak)
        svg.line(left, y, left + wide * length, y, "grid")
        svg.text(left - 5, y + 3.5, _label(tick), "label", "end")
    for place in range(length):
        base = top + full
        for v in np.argsort(frequencies[place], kind="stable"):
            height = full * information[place] / peak * frequencies[place, v]
            # Slivers below a third of a pixel cannot be read and would bloat the page.
            if height >= 0.3:
                kind = f"h{(groups or {}).get(letters[v], 0)}"
                svg.glyph(left + place * wide, base, wide * 0.94, height, letters[v], kind)
            base -= height
        if place == 0 or (place + 1) % 5 == 0:
            svg.text(left + (place + 0.5) * wide, top + full + 15, str(place + 1), "label", "middle")
    return svg

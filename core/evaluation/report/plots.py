"""The plots of a report: scatter matrix, histogram, bars and sequence logo. Each names its axes and units."""

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
    step = next((m * power for m in (1, 2, 5) if m * power >= raw * 0.7), 10 * power)
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


def _draw_axes(svg: Svg, x: _Scale, y: _Scale, label: str, upright: str) -> None:
    """Both axes with ticks and what they measure."""
    svg.line(x.start, y.start, x.end, y.start, "axis")
    for tick in ticks(x.low, x.high, 5):
        svg.line(x.at(tick), y.start, x.at(tick), y.start + 4, "axis")
        svg.text(x.at(tick), y.start + 16, _label(tick), "label", "middle")
    svg.text((x.start + x.end) / 2, y.start + 33, _shortened(label, 60), "unit", "middle")
    if upright:
        for tick in ticks(y.low, y.high, 4):
            svg.line(x.start, y.at(tick), x.end, y.at(tick), "grid")
            svg.text(x.start - 6, y.at(tick) + 3.5, _label(tick), "label", "end")
        svg.text(12, (y.start + y.end) / 2, _shortened(upright, 44), "unit", "middle", upright=True)


def scatter_matrix(
    values: ArrayLike, labels: Sequence[str], front: ArrayLike, title: str = "Scores of all samples, pair by pair"
) -> Svg:
    """Every pair of columns of `values` `[N, M]`, M at least 2; rows of the mask `front` stand out.

    `labels` name the columns with their units. Rows with a gap stay out.
    """
    table = np.asarray(values, dtype=np.float64)
    mask: Bool[np.ndarray, " N"] = np.asarray(front, dtype=bool)
    if table.ndim != 2 or table.shape[1] != len(labels) or len(mask) != len(table) or len(labels) < 2:
        raise ValueError(f"{table.shape} values do not fit {len(labels)} names and a mask of {len(mask)}")
    side = len(labels) - 1
    cell, gap, left, top = min(360.0, 660.0 / side), 10.0, 58.0, 46.0
    fitting = int(cell / 6.2)
    svg = Svg(
        left + side * cell,
        top + side * cell + 34,
        title,
        f"{int(mask.sum())} of {len(table)} samples lie on the Pareto front of {', '.join(labels)}.",
    )
    limits = [_range(column) for column in table.T]
    for row in range(1, side + 1):
        y = _Scale(*limits[row], top + row * cell - gap, top + (row - 1) * cell)
        for column in range(row):
            x = _Scale(*limits[column], left + column * cell, left + (column + 1) * cell - gap)
            svg.rectangle(x.start, y.end, x.end - x.start, y.start - y.end, "frame")
            svg.dots(x(table[~mask, column]), y(table[~mask, row]), "rest")
            svg.dots(x(table[mask, column]), y(table[mask, row]), "front")
            if row == side:
                for tick in ticks(x.low, x.high):
                    svg.text(x.at(tick), y.start + 14, _label(tick), "label", "middle")
                middle = (x.start + x.end) / 2
                svg.text(middle, y.start + 32, _shortened(labels[column], fitting), "unit", "middle")
        for tick in ticks(y.low, y.high):
            svg.text(left - 6, y.at(tick) + 3.5, _label(tick), "label", "end")
        svg.text(12, (y.start + y.end) / 2, _shortened(labels[row], fitting), "unit", "middle", upright=True)
    svg.text(0, 14, title, "name")
    _legend(svg, 34, (("front", "on the Pareto front"), ("rest", "dominated")))
    return svg


def _legend(svg: Svg, y: float, entries: Sequence[tuple[str, str]]) -> None:
    """All entries in one line, from the left."""
    x = 6.0
    for kind, label in entries:
        if kind in ("front", "rest"):
            svg.dots(np.array([x]), np.array([y - 4.0]), kind)
        elif kind == "outline":
            svg.line(x - 6, y - 4, x + 6, y - 4, kind)
        else:
            svg.rectangle(x - 5, y - 9, 10, 10, kind)
        svg.text(x + 11, y, label)
        x += 30 + 6.0 * len(label)


def histogram(
    samples: ArrayLike, title: str, label: str, reference: ArrayLike = (), names: tuple[str, str] = ("samples", "real")
) -> Svg:
    """The share of samples per bin as bars, over that of the reference as an outline.

    `label` says what is measured, with its unit; `names` are those of samples and reference.
    """
    own, other = np.asarray(samples, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    finite = own[np.isfinite(own)]
    median = f"median {_label(float(np.median(finite)))}" if len(finite) else "no value"
    svg = Svg(420, 250, title, f"{len(finite)} {names[0]}, {median}, {label}.")
    edges = _bins(own, other)
    shares, others = 100 * _shares(own, edges), 100 * _shares(other, edges)
    x = _Scale(*_range(own, other), 52, 412)
    y = _Scale(0.0, max(float(shares.max()), float(others.max()), 1e-9) * 1.05, 206, 46)
    _draw_axes(svg, x, y, label, "share of sequences (%)")
    screen = x(np.clip(edges, x.low, x.high))
    for left, right, share in zip(screen[:-1], screen[1:], shares, strict=True):
        if share:
            svg.rectangle(left + 0.4, y.at(share), right - left - 0.8, y.start - y.at(share), "fill")
    if others.any():
        heights, across = y(np.repeat(others, 2)), np.repeat(screen, 2)[1:-1]
        ends = np.array([y.start])
        svg.polyline(
            np.concatenate([across[:1], across, across[-1:]]), np.concatenate([ends, heights, ends]), "outline"
        )
    svg.text(0, 14, _shortened(title, 56), "name")
    if len(other):
        _legend(svg, 34, (("fill", names[0]), ("outline", names[1])))
    return svg


def bar(
    values: Mapping[str, float],
    title: str,
    label: str,
    highlight: str | None = None,
    intervals: Mapping[str, tuple[float, float]] | None = None,
) -> Svg:
    """Horizontal bars from zero with their values; `highlight` names ours, `intervals` draws whiskers.

    `label` says what is measured, with its unit.
    """
    spread = intervals or {}
    finite = [v for v in values.values() if math.isfinite(v)] + [v for pair in spread.values() for v in pair]
    low, high = min([0.0, *finite]), max([0.0, *finite])
    row, top, left, width = 27.0, 28.0, 158.0, 440.0
    bottom = top + row * max(len(values), 1)
    described = "; ".join(f"{name}: {_label(value)}" for name, value in values.items())
    svg = Svg(width, bottom + 40, title, f"{label}. {described}.")
    x = _Scale(low, high if high > low else low + 1.0, left, width - 62)
    _draw_axes(svg, x, _Scale(0.0, 1.0, bottom, top), label, "")
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
    svg.text(0, 14, _shortened(title, 60), "name")
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
    wide, top, left, full = max(10.0, min(24.0, 640.0 / max(length, 1))), 28.0, 52.0, 110.0
    logs = np.log2(np.where(frequencies > 0, frequencies, 1.0))
    information = np.maximum(math.log2(size) + (frequencies * logs).sum(axis=1), 0.0)
    peak = max(float(information.max(initial=0.0)), 1e-9)
    width = max(left + wide * length + 6, 220.0)
    svg = Svg(width, top + full + 38, title, f"Information per position, at most {peak:.2f} bits.")
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
    svg.text(left + wide * length / 2, top + full + 33, "position", "unit", "middle")
    svg.text(12, top + full / 2, "information (bits)", "unit", "middle", upright=True)
    return svg

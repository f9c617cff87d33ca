"""The charts of a bench report as inline SVG text; colours are CSS variables of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 760, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 18, 26
N_BINS, N_COLUMNS, MAX_POINTS = 48, 60, 700
FAR = 4  # a bound that many times above the slowest frame would press the line to the floor


@dataclass(frozen=True, slots=True)
class Scale:
    """Data to drawing: [0, x_max] x [y_min, y_max] into the plot's box."""

    x_max: float
    y_min: float
    y_max: float

    def x(self, value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * min(max(value / self.x_max, 0.0), 1.0)

    def y(self, value: float) -> float:
        share = (value - self.y_min) / (self.y_max - self.y_min)
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * min(max(share, 0.0), 1.0)


def timeline(t_s: Floats, ms: Floats, bound: float | None, title: str) -> str:
    """Latency (n,) over the time of the run (n,): each stretch of time from its fastest to its slowest frame."""
    slowest = float(ms.max())
    bound = None if bound is None or bound > FAR * slowest else bound
    scale = Scale(_end(t_s), 0.0, _ceiling(max(slowest, bound or 0.0)))
    parts = _axes(scale, "s", "ms")
    points = [f"{scale.x(x):.1f},{scale.y(y):.1f}" for x, y in zip(*_envelope(t_s, ms), strict=True)]
    parts.append(f'<polyline class="line a" points="{" ".join(points)}"/>')
    if bound is not None:
        parts.append(_level(scale, bound, f"budget {bound:g}"))
    return _svg(title, parts)


def readings(t_s: Sequence[float], values: Sequence[float], unit: str, title: str) -> str:
    """What the board said over the time of the run."""
    low, high = min(values), max(values)
    room = 0.2 * (high - low) or max(0.05 * abs(high), 1.0)
    scale = Scale(_end(np.asarray(t_s)), low - room, high + room)
    points = " ".join(f"{scale.x(x):.1f},{scale.y(y):.1f}" for x, y in zip(t_s, values, strict=True))
    return _svg(title, [*_axes(scale, "s", unit), f'<polyline class="line a" points="{points}"/>'])


def stacked(t_s: Floats, stages: Floats, title: str) -> str:
    """Mean milliseconds of each stage (stages, n) over the time of the run, one on top of the other."""
    edges = np.linspace(0, _end(t_s), min(N_COLUMNS, len(t_s)) + 1)
    column = np.clip(np.searchsorted(edges, t_s, side="right") - 1, 0, len(edges) - 2)
    count = np.maximum(np.bincount(column, minlength=len(edges) - 1), 1)
    means = np.stack([np.bincount(column, weights=row, minlength=len(edges) - 1) / count for row in stages])
    tops = np.vstack([np.zeros(means.shape[1]), means.cumsum(axis=0)])
    scale = Scale(float(edges[-1]), 0.0, _ceiling(float(tops[-1].max())))
    parts = [
        _box(scale, edges[c], edges[c + 1], tops[s, c], tops[s + 1, c], f"s{s % 10}")
        for c in range(means.shape[1])
        for s in range(len(stages))
        if means[s, c] > 0
    ]
    return _svg(title, [*_axes(scale, "s", "ms"), *parts])


def histogram(ms: Floats, marks: Sequence[tuple[str, float]], title: str) -> str:
    """Number of frames by latency; marks: (name, milliseconds) of vertical lines. The slowest 0.1 % may lie beyond."""
    low, high = float(ms.min()), float(np.quantile(ms, 0.999, method="higher"))
    high = max([high, *(value for _, value in marks), low * 1.05 + 1e-6])
    counts, edges = np.histogram(ms, N_BINS, (low, high))
    scale = Scale(high - low, 0.0, _ceiling(float(counts.max())))
    parts = _axes(scale, "ms", "frames", low)
    for i in np.flatnonzero(counts):
        parts.append(_box(scale, edges[i] - low, edges[i + 1] - low, 0.0, float(counts[i]), "bar"))
    for row, (name, value) in enumerate(marks):
        x = scale.x(value - low)
        end = x > WIDTH - 120
        parts.append(f'<line class="threshold" x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(
            _text(x + (-4 if end else 4), TOP + 10 + 13 * (row % 4), f"{name} {value:.2f}", "end" if end else "start")
        )
    return _svg(title, parts)


def _svg(title: str, parts: Sequence[str]) -> str:
    label = escape(title, quote=True)
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _box(scale: Scale, left: float, right: float, low: float, high: float, style: str) -> str:
    x, y = scale.x(left), scale.y(high)
    size = f'width="{max(scale.x(right) - x, 0.4):.1f}" height="{max(scale.y(low) - y, 0.3):.1f}"'
    return f'<rect class="{style}" x="{x:.1f}" y="{y:.1f}" {size}/>'


def _level(scale: Scale, value: float, name: str) -> str:
    y = scale.y(value)
    line = f'<line class="threshold" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>'
    return line + _text(WIDTH - RIGHT, y + 12, name, "end")


def _axes(scale: Scale, x_unit: str, y_unit: str, x_first: float = 0.0) -> list[str]:
    """Lines and numbers; x_first: what stands at the left end."""
    parts = []
    for value in _ticks(scale.y_min, scale.y_max):
        y = scale.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}"/>')
        parts.append(_text(LEFT - 5, y + 3.5, f"{value:g}", "end"))
    for value in _ticks(x_first, x_first + scale.x_max):
        parts.append(_text(scale.x(value - x_first), HEIGHT - 9, f"{value:g}", "middle"))
    return [*parts, _text(WIDTH - RIGHT, HEIGHT - 9, x_unit, "end"), _text(2, 10, y_unit, "start")]


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers from low to high."""
    step = next(s * 10.0**e for e in range(-6, 12) for s in (1, 2, 5) if (high - low) / (s * 10.0**e) <= 5)
    first = int(np.ceil(low / step - 1e-9))
    return [round(i * step, 9) for i in range(first, int(np.floor(high / step + 1e-9)) + 1)]


def _ceiling(value: float) -> float:
    return 1.08 * value or 1.0


def _end(t_s: Any) -> float:
    return max(float(t_s[-1]), 1e-3)


def _envelope(t_s: Floats, ms: Floats) -> tuple[Floats, Floats]:
    """All points, or the lowest and highest of short stretches: no slow frame is lost."""
    if len(ms) <= MAX_POINTS:
        return t_s, ms
    stretches = np.array_split(np.arange(len(ms)), MAX_POINTS // 2)
    kept = np.concatenate([np.sort([i[ms[i].argmin()], i[ms[i].argmax()]]) for i in stretches])
    return t_s[kept], ms[kept]

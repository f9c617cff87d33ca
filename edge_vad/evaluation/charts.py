"""Charts as inline SVG text. Colours are CSS variables of the page, so a chart follows its light and dark mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from edge_vad.evaluation.metrics import THRESHOLD, runs

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# A drawing is about as wide as a phone, so that its text keeps a readable size there.
_WIDTH = 380
_MAX_POINTS = 600


@dataclass(frozen=True, slots=True)
class Curve:
    """One ROC curve. style: the CSS class of its line (``a`` or ``b``)."""

    name: str
    fpr: Floats
    tpr: Floats
    style: str


@dataclass(frozen=True, slots=True)
class _Plot:
    """Maps data to the drawing: [0, x_max] x [y_min, y_max] into a box of (left, top, right, bottom)."""

    box: tuple[float, float, float, float]
    x_max: float
    y_min: float
    y_max: float

    def x(self, value: float) -> float:
        left, _, right, _ = self.box
        return left + (right - left) * min(max(value / self.x_max, 0.0), 1.0)

    def y(self, value: float) -> float:
        _, top, _, bottom = self.box
        share = (value - self.y_min) / (self.y_max - self.y_min)
        return bottom - (bottom - top) * min(max(share, 0.0), 1.0)


def shared_range(scores: Sequence[Floats]) -> tuple[float, float]:
    """Lowest and highest score to draw, one range for all clips; the highest 0.5 % may be cut off."""
    joined = np.concatenate(scores)
    return min(0.0, float(np.quantile(joined, 0.005))), max(1.5, 1.08 * float(np.quantile(joined, 0.995)))


def score_chart(scores: Floats, labels: Bools, score_range: tuple[float, float], title: str) -> str:
    """Score over time: true intervals shaded, the threshold dashed, below a strip of detections and false alarms.

    scores (n,) float, labels (n,) bool.
    """
    n, height = len(scores), 132
    plot = _Plot((28, 8, _WIDTH - 6, height - 28), max(1, n - 1), *score_range)
    left, top, right, bottom = plot.box
    parts = [_span(plot, "truth", run, top, bottom) for run in runs(labels)]
    alarms = scores >= THRESHOLD
    parts += [_span(plot, "hit", run, bottom + 3, bottom + 7) for run in runs(alarms & labels)]
    parts += [_span(plot, "false", run, bottom + 3, bottom + 7) for run in runs(alarms & ~labels)]
    parts += [_text(left - 5, plot.y(t) + 3.5, f"{t:g}", "end") for t in _score_ticks(score_range)]
    threshold = plot.y(THRESHOLD)
    parts.append(f'<line class="threshold" x1="{left}" y1="{threshold:.1f}" x2="{right}" y2="{threshold:.1f}"/>')
    parts.append(_polyline(plot, *_envelope(scores), "a"))
    parts += [_frame_tick(plot, tick, n, height) for tick in _frame_ticks(n)]
    return _svg(height, title, parts)


def roc_chart(curves: Sequence[Curve], operating_point: tuple[float, float] | None, title: str) -> str:
    """ROC curves, and a ring at ``operating_point``: (false-positive rate, detection rate) at the threshold."""
    side, left, top = 316.0, 44.0, 8.0
    plot = _Plot((left, top, left + side, top + side), 1.0, 0.0, 1.0)
    bottom = top + side
    parts = [f'<rect class="frame" x="{left}" y="{top}" width="{side}" height="{side}"/>']
    parts.append(f'<line class="grid" x1="{left}" y1="{bottom}" x2="{left + side}" y2="{top}"/>')
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts.append(_text(plot.x(tick), bottom + 14, f"{tick:g}", "middle"))
        parts.append(_text(left - 6, plot.y(tick) + 4, f"{tick:g}", "end"))
    parts.append(_text(left + side / 2, bottom + 29, "false-positive rate", "middle"))
    middle = top + side / 2
    parts.append(f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">detection rate</text>')
    parts += [_polyline(plot, *_thinned(curve), curve.style) for curve in curves]
    if operating_point is not None:
        x, y = operating_point
        parts.append(f'<circle class="point" cx="{plot.x(x):.1f}" cy="{plot.y(y):.1f}" r="4.5"/>')
    parts += [_key(left + side - 122, bottom - 14 - 18 * row, curve) for row, curve in enumerate(reversed(curves))]
    return _svg(int(bottom) + 36, title, parts)


def stage_bars(stage_ms: dict[str, float], title: str) -> str:
    """A horizontal bar for each stage's CPU milliseconds per frame, the longest first."""
    rows = sorted(stage_ms.items(), key=lambda item: -item[1])
    longest = max([ms for _, ms in rows], default=0.0) or 1.0
    label_width = min(150, 14 + 7 * max([len(name) for name, _ in rows], default=0))
    room = _WIDTH - label_width - 62
    parts = []
    for row, (name, ms) in enumerate(rows):
        y = 6 + 24 * row
        width = max(1.0, room * ms / longest)
        parts.append(_text(label_width - 8, y + 13, name if len(name) <= 20 else name[:19] + "…", "end"))
        parts.append(f'<rect class="bar" x="{label_width}" y="{y}" width="{width:.1f}" height="17" rx="2"/>')
        parts.append(_text(label_width + width + 6, y + 13, f"{ms:.2f} ms", "start"))
    return _svg(12 + 24 * len(rows), title, parts)


def _svg(height: int, title: str, parts: Sequence[str]) -> str:
    label = escape(title, quote=True)
    body = "".join(part for part in parts if part)
    return f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">{body}</svg>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _polyline(plot: _Plot, x: Floats, y: Floats, style: str) -> str:
    points = " ".join(f"{plot.x(a):.1f},{plot.y(b):.1f}" for a, b in zip(x, y, strict=True))
    return f'<polyline class="line {style}" points="{points}"/>'


def _span(plot: _Plot, style: str, run: tuple[int, int], top: float, bottom: float) -> str:
    """A rectangle over the frames of ``run``; a frame reaches half a frame to both sides."""
    left, right = plot.x(run[0] - 0.5), plot.x(run[1] - 0.5)
    size = f'width="{max(right - left, 0.8):.1f}" height="{bottom - top:.1f}"'
    return f'<rect class="{style}" x="{left:.1f}" y="{top:.1f}" {size}/>'


def _key(x: float, y: float, curve: Curve) -> str:
    return f'<line class="line {curve.style}" x1="{x}" y1="{y}" x2="{x + 16}" y2="{y}"/>' + _text(
        x + 21, y + 4, curve.name, "start"
    )


def _frame_tick(plot: _Plot, tick: int, n: int, height: int) -> str:
    anchor = "start" if tick == 0 else "end" if tick == n - 1 else "middle"
    return _text(plot.x(tick), height - 6, str(tick), anchor)


def _frame_ticks(n: int) -> list[int]:
    """0, round numbers, and the last frame where no round number is close to it."""
    step = next((s * 10**e for e in range(9) for s in (1, 2, 5) if n / (s * 10**e) <= 6), 10**9)
    last = max(0, n - 1)
    return [tick for tick in range(0, n, step) if last - tick > 0.6 * step] + [last]


def _score_ticks(score_range: tuple[float, float]) -> list[float]:
    """0, 1 (the threshold) and the highest round number where it stands apart from them."""
    low, high = score_range
    top = float(int(high))
    ticks = [0.0, 1.0]
    return [*ticks, top] if top >= 2 and (high - low) / (top - 1) < 6 else ticks


def _envelope(scores: Floats) -> tuple[Floats, Floats]:
    """(x, y) of a line through all scores; of a long clip minimum and maximum of short stretches: no peak is lost."""
    n = len(scores)
    if n <= _MAX_POINTS:
        return np.arange(n, dtype=np.float64), scores
    edges = np.linspace(0, n, _MAX_POINTS // 2 + 1).astype(int)
    pieces = [(start, scores[start:stop]) for start, stop in pairwise(edges)]
    places = [sorted((start + int(piece.argmin()), start + int(piece.argmax()))) for start, piece in pieces]
    x = np.array(places).ravel()
    return x.astype(np.float64), scores[x]


def _thinned(curve: Curve) -> tuple[Floats, Floats]:
    keep = np.unique(np.linspace(0, len(curve.fpr) - 1, min(len(curve.fpr), _MAX_POINTS)).astype(int))
    return curve.fpr[keep], curve.tpr[keep]

"""Raw components to one anomaly score whose threshold is 1.0, from statistics of normal footage only.

A component is a distance; its logarithm is close to normal, so log distances are standardised with the mean and
deviation of normal frames, summed with fixed weights (document 000, equation 12, with the statistics of normal footage
in the place of the test video's), averaged over the last ``window_s`` seconds, and scaled so that 0 is the usual normal
score and 1 the score that normal footage passes as often as the false-alarm budget allows. That point lies beyond the
footage: it is read off an exponential tail fitted to the peaks (extreme-value theory, peaks over threshold).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge_vad.strict import check_range

FLOOR = -3.0  # standard deviations: a frame with nothing to score is as normal as it gets
TAIL = 0.90  # quantile of the smoothed score above which the tail is fitted
TINY = 1e-12  # the smallest distance that has a logarithm here
MIN_RANGE = 1e-6  # from the usual sum to the threshold
LARGE = 1e6  # larger statistics than any footage gives


@dataclass(frozen=True, slots=True)
class Component:
    """Statistics of one component's log distance on normal footage, and its weight in the sum."""

    mean: float
    std: float
    floor: float
    weight: float

    def __post_init__(self) -> None:
        check_range(-LARGE, LARGE, mean=self.mean)
        check_range(1e-6, LARGE, std=self.std)
        check_range(0, 1e12, floor=self.floor)
        check_range(0, LARGE, weight=self.weight)


@dataclass(frozen=True, slots=True)
class Tail:
    """The exponential tail of normal footage. start: smoothed sum where it begins; scale: of the excesses.

    peaks_per_hour: separate excursions above ``start``. threshold: the sum that is passed ``budget_per_hour`` times an
    hour. low, high: 90 % interval of the threshold, by a bootstrap over clips. hours: of normal footage.
    """

    start: float
    scale: float
    peaks_per_hour: float
    budget_per_hour: float
    threshold: float
    low: float
    high: float
    hours: float

    def __post_init__(self) -> None:
        check_range(-LARGE, LARGE, start=self.start, threshold=self.threshold, low=self.low, high=self.high)
        check_range(0, 1e12, scale=self.scale, peaks_per_hour=self.peaks_per_hour, hours=self.hours)
        check_range(1e-9, 1e12, budget_per_hour=self.budget_per_hour)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What the runtime needs to score. centre: the median smoothed sum of normal footage, score 0."""

    components: dict[str, Component]
    window_s: float
    centre: float
    tail: Tail

    def __post_init__(self) -> None:
        if not self.components:
            raise ValueError("no component is calibrated")
        check_range(1e-3, 3600, window_s=self.window_s)
        check_range(-LARGE, self.tail.threshold - MIN_RANGE, centre=self.centre)

    def standardise(self, name: str, raw: NDArray[np.floating] | float) -> NDArray[np.float64]:
        """Raw scores of a component -> standard deviations above normal, weighted; any shape."""
        c = self.components[name]
        z = (np.log(np.maximum(np.asarray(raw, dtype=np.float64) + c.floor, TINY)) - c.mean) / c.std
        return np.asarray(np.maximum(z, FLOOR) * c.weight)

    def score(self, total: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Sums of standardised components -> anomaly score."""
        return (np.asarray(total) - self.centre) / (self.tail.threshold - self.centre)


class Scorer:
    """The calibrated score of one stream, causal."""

    def __init__(self, calibration: Calibration) -> None:
        self._calibration = calibration
        self._window: deque[tuple[float, float]] = deque()
        self._start_s: float | None = None

    def reset(self) -> None:
        """Forget the past after a gap in the stream."""
        self._window.clear()
        self._start_s = None

    def is_warm(self, timestamp: float) -> bool:
        """Whether a full window has passed since the stream began: no event starts before."""
        return self._start_s is not None and timestamp - self._start_s >= self._calibration.window_s - 1e-6

    def update(self, timestamp: float, components: Mapping[str, float]) -> tuple[float, dict[str, float]]:
        """Anomaly score of a frame and each component's share, in standard deviations above normal.

        A component that is not known yet counts as usual (0). Before anything is known the score is that of a usual frame.
        """
        self._start_s = timestamp if self._start_s is None else self._start_s
        shares = {n: 0.0 if np.isnan(v) else float(self._calibration.standardise(n, v)) for n, v in components.items()}
        if not all(np.isnan(v) for v in components.values()):
            self._window.append((timestamp, sum(shares.values())))
        while self._window and timestamp - self._window[0][0] >= self._calibration.window_s - 1e-6:
            self._window.popleft()
        if not self._window:
            return 0.0, shares
        mean = sum(total for _, total in self._window) / len(self._window)
        return float(self._calibration.score(mean)), shares


Footage = Sequence[tuple[NDArray[np.float64], Mapping[str, NDArray[np.float64]]]]


def calibrate(
    footage: Footage, weights: Mapping[str, float], window_s: float, budget_per_hour: float, seed: int = 0
) -> Calibration:
    """Fit on normal clips that the banks have not seen: per clip the timestamps (n,) and raw components name -> (n,).

    The clips must come from cross-fitting (each scored against the memory of the others), else the threshold is too low.
    """
    components = {name: _statistics([clip[name] for _, clip in footage], weights[name]) for name in footage[0][1]}
    unscaled = Calibration(components, window_s, 0.0, Tail(0, 1, 1, budget_per_hour, 1.0, 1.0, 1.0, 0))
    warm = [_warm(times, window_s) for times, _ in footage]
    smoothed = [_smoothed(unscaled, times, raw)[kept] for (times, raw), kept in zip(footage, warm, strict=True)]
    moments = [times[kept] for (times, _), kept in zip(footage, warm, strict=True)]
    durations = [float(times[-1] - times[0]) + _period(times) for times in moments]
    tail = _fit_tail(smoothed, moments, durations, window_s, budget_per_hour, seed)
    centre = float(np.median(np.concatenate(smoothed)))
    if tail.threshold < centre + MIN_RANGE:  # every frame scores the same
        tail = replace(tail, threshold=centre + 2 * MIN_RANGE)
    return Calibration(components, window_s, centre, tail)


def _statistics(raw: Sequence[NDArray[np.float64]], weight: float) -> Component:
    values = np.concatenate(raw)
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) < 2:
        return Component(0.0, 1.0, 1.0, 0.0)  # never seen on normal footage: nothing to compare with
    floor = 0.01 * float(np.median(values))
    logs = np.log(values + floor)
    return Component(float(logs.mean()), max(float(logs.std()), 1e-3), floor, weight)


def _smoothed(
    calibration: Calibration, times: NDArray[np.float64], raw: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Smoothed sums of one clip by the runtime's own scorer (centre 0, threshold 1: the score is the sum)."""
    scorer = Scorer(calibration)
    rows = [scorer.update(float(t), {n: float(v[i]) for n, v in raw.items()})[0] for i, t in enumerate(times)]
    return np.array(rows)


def _warm(times: NDArray[np.float64], window_s: float) -> NDArray[np.bool_]:
    """Frames of a clip whose full window has passed; all where none has. A stream starts once, a training set often:
    the few frames that rest on less would set the threshold for all others."""
    warm = times - times[0] >= window_s - 1e-6
    return warm if warm.any() else np.ones(len(times), dtype=bool)


def _period(times: NDArray[np.float64]) -> float:
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


def _peaks(scores: NDArray[np.float64], times: NDArray[np.float64], start: float, gap_s: float) -> NDArray[np.float64]:
    """Highest excess of every separate excursion above ``start``; two are separate when ``gap_s`` lies between them."""
    above = np.flatnonzero(scores > start)
    if not len(above):
        return np.zeros(0)
    groups = np.split(above, np.flatnonzero(np.diff(times[above]) > gap_s) + 1)
    return np.array([scores[g].max() - start for g in groups])


def _fit_tail(
    smoothed: list[NDArray[np.float64]],
    times: list[NDArray[np.float64]],
    durations: list[float],
    window_s: float,
    budget_per_hour: float,
    seed: int,
) -> Tail:
    start = float(np.quantile(np.concatenate(smoothed), TAIL))
    peaks = [_peaks(s, t, start, window_s) for s, t in zip(smoothed, times, strict=True)]
    hours = np.array(durations) / 3600
    threshold, scale, rate = _threshold(peaks, hours, start, budget_per_hour)
    generator = np.random.default_rng(seed)
    again = []
    for _ in range(200):
        chosen = generator.integers(0, len(peaks), len(peaks))
        again.append(_threshold([peaks[i] for i in chosen], hours[chosen], start, budget_per_hour)[0])
    low, high = np.quantile(again, [0.05, 0.95])
    return Tail(start, scale, rate, budget_per_hour, threshold, float(low), float(high), float(hours.sum()))


def _threshold(
    peaks: list[NDArray[np.float64]], hours: NDArray[np.float64], start: float, budget_per_hour: float
) -> tuple[float, float, float]:
    """Threshold, scale and peaks per hour. The exponential tail's scale is the mean excess (maximum likelihood)."""
    excess = np.concatenate(peaks)
    scale = float(excess.mean()) if len(excess) else 0.1
    rate = max(len(excess), 1) / max(float(hours.sum()), 1e-9)
    return start + scale * float(np.log(max(rate / budget_per_hour, 1.0))), scale, rate

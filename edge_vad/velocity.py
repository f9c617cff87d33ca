"""How fast regions move, in object heights per second, measured in the picture by block matching.

Resizing a crop removes speed and size, so speed is measured before: a region's luma is compared with the picture
several lags ago by normalised cross-correlation, sub-pixel by a parabola. A single pair of frames is noisy and the
maximum over regions rewards every error, therefore the estimate is the *smallest* speed over the lags: a lower bound
(method.md, section 5, lesson 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from edge_vad import kernels
from edge_vad.sampling import windows
from edge_vad.types import Float32, UInt8

HEIGHT, WIDTH = 24, 12  # canonical size of an object in samples: all regions, near and far, become one batch
MIN_CORRELATION = 0.4
CONTRAST_FLOOR = 4.0  # grey levels squared; keeps flat regions from matching by noise
VERTICAL = 2 / 3  # of the horizontal search range: cameras look along the ground


@dataclass(frozen=True, slots=True)
class Search:
    """The largest speed that is looked for, in object heights per second."""

    max_speed: float


def velocities(now: UInt8, past: list[tuple[float, UInt8]], boxes: Float32, search: Search) -> Float32:
    """Robust velocity of each box: (n, 2) float32, object heights per second, x to the right and y down.

    now: luma (H, W) uint8. past: (lag in seconds, luma at that lag). boxes: (n, 4) of the usual object size.
    The lag with the smallest speed among those that correlate well wins; 0 where none does.
    """
    best = np.zeros((len(boxes), 2), dtype=np.float32)
    if not len(boxes):
        return best
    slowest = np.full(len(boxes), np.inf, dtype=np.float32)
    template = windows(now, boxes, WIDTH, HEIGHT)
    template -= template.mean(axis=(1, 2), keepdims=True)
    for lag_s, luma in past:
        shift, correlation = _match(template, luma, boxes, search.max_speed * lag_s)
        velocity = shift / np.float32(lag_s)
        speed = np.linalg.norm(velocity, axis=1)
        better = (correlation > MIN_CORRELATION) & (speed < slowest)
        best[better] = velocity[better]
        slowest[better] = speed[better]
    return best


def _match(template: Float32, luma: UInt8, boxes: Float32, reach: float) -> tuple[Float32, Float32]:
    """Shift (n, 2) in object heights from the past luma to now, and its correlation (n,)."""
    mx = int(np.ceil(reach * HEIGHT))
    my = int(np.ceil(reach * HEIGHT * VERTICAL))
    sx = (boxes[:, 2] - boxes[:, 0]) / WIDTH
    sy = (boxes[:, 3] - boxes[:, 1]) / HEIGHT
    around = boxes + np.stack([-mx * sx, -my * sy, mx * sx, my * sy], axis=1).astype(np.float32)
    area = windows(luma, around, WIDTH + 2 * mx, HEIGHT + 2 * my)
    correlation = _correlate(template, area)
    flat = correlation.reshape(len(boxes), -1)
    peak = flat.argmax(axis=1)
    row, column = np.divmod(peak, correlation.shape[2])
    dx = column + _parabola(correlation, row, column, axis=2) - mx
    dy = row + _parabola(correlation, row, column, axis=1) - my
    # One sample is a 24th of an object's height downwards; across it is the box width over 12, which is the same
    # length for boxes of the usual shape and is brought to heights here for all others.
    shift = np.stack([-dx * sx / (sy * HEIGHT), -dy / HEIGHT], axis=1).astype(np.float32)
    return shift, flat[np.arange(len(boxes)), peak]


def _correlate(template: Float32, area: Float32) -> Float32:
    """Normalised cross-correlation (n, rows, columns) of zero-mean templates (n, h, w) in areas (n, H, W)."""
    h, w = template.shape[1:]
    n_samples = h * w
    if kernels.LIBRARY:
        return kernels.correlate(template, area, n_samples * CONTRAST_FLOOR)
    n_rows, n_columns = area.shape[1:]
    shape = _smooth(n_rows), _smooth(n_columns)
    padded = np.zeros((len(area), *shape), dtype=np.float32)
    area = np.subtract(area, area.mean(axis=(1, 2), keepdims=True), out=padded[:, :n_rows, :n_columns])
    spectrum = np.fft.rfft2(padded)
    spectrum *= np.conj(np.fft.rfft2(template, s=shape))
    product = np.fft.irfft2(spectrum, s=shape)[:, : n_rows - h + 1, : n_columns - w + 1]
    total = _box_sum(area, h, w)
    total *= total
    energy = _box_sum(area * area, h, w)
    energy -= total / np.float32(n_samples)
    np.sqrt(np.maximum(energy, np.float32(1e-3), out=energy), out=energy)
    energy *= np.sqrt(np.einsum("nij,nij->n", template, template))[:, None, None]
    energy += np.float32(n_samples * CONTRAST_FLOOR)
    return np.asarray(product / energy)


@cache
def _smooth(size: int) -> int:
    """The next size without a prime factor above 5: a Fourier transform of 46 samples takes twice as long as one of 48."""
    rest = size
    for factor in (2, 3, 5):
        while rest % factor == 0:
            rest //= factor
    return size if rest == 1 else _smooth(size + 1)


def _box_sum(values: Float32, h: int, w: int) -> Float32:
    """Sums over every h x w window of (n, H, W)."""
    return _bands(values.shape[1], h) @ values @ _bands(values.shape[2], w).T


@cache
def _bands(size: int, length: int) -> Float32:
    """Matrix (size - length + 1, size): each row sums ``length`` neighbours. No running sum, whose digits would cancel."""
    start, place = np.arange(size - length + 1)[:, None], np.arange(size)
    return ((place >= start) & (place < start + length)).astype(np.float32)


def _parabola(values: Float32, row: NDArray[np.intp], column: NDArray[np.intp], axis: int) -> Float32:
    """Sub-sample offset (n,) of a peak along one axis, in -0.5..0.5; 0 at the border."""
    item = np.arange(len(values))
    position = row if axis == 1 else column
    last = values.shape[axis] - 1
    before, after = np.maximum(position - 1, 0), np.minimum(position + 1, last)
    left = values[item, before, column] if axis == 1 else values[item, row, before]
    right = values[item, after, column] if axis == 1 else values[item, row, after]
    bend = left - 2 * values[item, row, column] + right
    inside = (position > 0) & (position < last) & (bend < -1e-6)
    offset = 0.5 * (left - right) / np.where(inside, bend, -1.0)
    return np.where(inside, np.clip(offset, -0.5, 0.5), 0.0).astype(np.float32)

"""Motion from RGB difference: which pixels change, and regions of the usual object size around them.

There is no optical-flow network. A pixel moves where any colour channel differs from the picture one or two lags ago.
Blobs of moving pixels merge people who walk side by side; regions are therefore not blobs but boxes of the usual size
at their image row that hold the most moving pixels, chosen greedily (method.md, section 5, lesson 1: boxes matter).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_vad import kernels
from edge_vad.perspective import Perspective
from edge_vad.sampling import decimate
from edge_vad.strict import check_range
from edge_vad.types import Float32, UInt8

CELL = 2  # working pixels per motion pixel, each side: the block mean is the noise filter
ASPECT = 0.5  # width of a region by its height
MAX_OVERLAP = 0.25  # of the smaller of two regions
MAX_REACH = 2.0  # object heights in one lag: the picture that is searched, and the time, grow with its square
GRID = 2  # motion pixels between neighbouring candidates
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class MotionSettings:
    """What decides that something moves; measured on normal footage at build.

    threshold: grey levels of RGB difference. lag_s: seconds of one lag; differences look back one and two lags, speeds
    up to three. min_fraction: moving part of a region. max_regions: the most that are scored in one frame.
    max_speed: largest speed searched for, usual_speed: the median of normal regions, in object heights per second.
    """

    threshold: int = 12
    lag_s: float = 0.2
    min_fraction: float = 0.25
    max_regions: int = 40
    max_speed: float = 1.2
    usual_speed: float = 0.25

    def __post_init__(self) -> None:
        check_range(0, 255, threshold=self.threshold)
        check_range(1e-3, 3600, lag_s=self.lag_s)
        check_range(0, 1, min_fraction=self.min_fraction)
        check_range(1, 1000, max_regions=self.max_regions)
        check_range(1e-6, 1e3, max_speed=self.max_speed, usual_speed=self.usual_speed)
        if self.max_speed * self.lag_s > MAX_REACH:
            raise ValueError(f"max_speed and lag_s search more than {MAX_REACH:g} object heights away in one lag")


@dataclass(frozen=True, slots=True)
class Moment:
    """What is kept of a past frame. small: (h, w, 3) uint8 block means; luma: (H, W) uint8 in working pixels."""

    timestamp: float
    small: UInt8
    luma: UInt8


class RgbDifference:
    """Keeps the last moments and compares the newest frame with them, by time stamps, not by frame counts."""

    N_LAGS = 3

    def __init__(self, settings: MotionSettings) -> None:
        self._settings = settings
        self._past: deque[Moment] = deque()

    def reset(self) -> None:
        """Forget the past: after a gap in the stream."""
        self._past.clear()

    def update(self, image: UInt8, luma: UInt8, timestamp: float) -> tuple[Mask, list[tuple[float, UInt8]]]:
        """Take one frame; image (H, W, 3) and luma (H, W) uint8 in working pixels.

        Returns the mask of moving pixels (H // 2, W // 2) and the past as (lag in seconds, luma), nearest lag first;
        both are empty of motion until one lag has passed.
        """
        now = Moment(timestamp, decimate(image, CELL), luma)
        lags = self.at_lags(timestamp)
        moving = np.zeros(now.small.shape[:2], dtype=bool)
        for moment in lags[:2]:
            difference = np.maximum(now.small, moment.small) - np.minimum(now.small, moment.small)
            over = difference > self._settings.threshold
            for channel in range(3):  # a reduction over three neighbours is twenty times slower
                moving |= over[:, :, channel]
        self.keep(now)
        return moving, [(timestamp - m.timestamp, m.luma) for m in lags]

    def keep(self, now: Moment) -> None:
        """Remember a frame for as long as the last lag may look back."""
        self._past.append(now)
        while now.timestamp - self._past[0].timestamp > (self.N_LAGS + 1) * self._settings.lag_s:
            self._past.popleft()

    def at_lags(self, timestamp: float) -> list[Moment]:
        """The kept moments nearest to one, two and three lags ago; a lag without a moment near it is left out."""
        found: list[Moment] = []
        for n in range(1, self.N_LAGS + 1):
            wanted = timestamp - n * self._settings.lag_s
            near = min(self._past, key=lambda m: abs(m.timestamp - wanted), default=None)
            if near is not None and near not in found and abs(near.timestamp - wanted) <= 0.5 * self._settings.lag_s:
                found.append(near)
        return found


class RegionProposer:
    """Boxes of the usual object size that hold the most moving pixels; candidates are laid out once."""

    def __init__(self, shape: tuple[int, int], perspective: Perspective, settings: MotionSettings) -> None:
        """shape: (h, w) of the motion mask."""
        self._settings = settings
        rows, columns = np.meshgrid(np.arange(2 * GRID, shape[0] + 1, GRID), np.arange(0, shape[1], GRID), indexing="ij")
        feet, centre = rows.ravel(), columns.ravel()
        height = perspective.height((feet * CELL).astype(np.float32)) / CELL
        kept = feet - height > -0.3 * height
        feet, centre, height = feet[kept], centre[kept], height[kept]
        x0 = np.clip(np.round(centre - ASPECT * height / 2), 0, shape[1]).astype(np.intp)
        x1 = np.clip(np.round(centre + ASPECT * height / 2), 0, shape[1]).astype(np.intp)
        y0 = np.clip(np.round(feet - height), 0, shape[0]).astype(np.intp)
        self._corners = (y0, feet, x0, x1)
        self._area = ASPECT * height * height
        half = ASPECT * height / 2
        self._boxes = np.stack([centre - half, feet - height, centre + half, feet], axis=1).astype(np.float32)

    def propose(self, moving: Mask) -> tuple[Float32, Float32]:
        """Regions of a mask (h, w): boxes (n, 4) float32 in working pixels and their moving fraction (n,)."""
        integral = np.zeros((moving.shape[0] + 1, moving.shape[1] + 1), dtype=np.int32)
        np.cumsum(np.cumsum(moving, axis=0, dtype=np.int32), axis=1, out=integral[1:, 1:])
        y0, y1, x0, x1 = self._corners
        fraction = (integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0]) / self._area
        candidates = np.flatnonzero(fraction > self._settings.min_fraction)
        order = candidates[np.argsort(-fraction[candidates], kind="stable")]
        chosen = suppress(self._boxes[order], MAX_OVERLAP, self._settings.max_regions)
        order = order[chosen]
        return self._boxes[order] * CELL, np.minimum(fraction[order], 1.0).astype(np.float32)


def suppress(boxes: Float32, max_overlap: float, limit: int) -> NDArray[np.int64]:
    """Greedy non-maximum suppression: indices of the boxes (n, 4), best first, that cover each other no more than
    ``max_overlap`` of the smaller one's area; at most ``limit``."""
    if kernels.LIBRARY:
        return kernels.suppress(boxes, max_overlap, limit)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    left = np.arange(len(boxes))
    kept: list[int] = []
    while len(left) and len(kept) < limit:
        best = left[0]
        kept.append(int(best))
        covered = intersection(boxes[best : best + 1], boxes[left])[0] / np.minimum(area[best], area[left])
        covered[0] = np.inf
        left = left[covered < max_overlap]
    return np.array(kept, dtype=np.int64)


def intersection(a: Float32, b: Float32) -> Float32:
    """Areas (n, m) that boxes a (n, 4) and b (m, 4) share."""
    width = np.minimum(a[:, None, 2], b[None, :, 2]) - np.maximum(a[:, None, 0], b[None, :, 0])
    height = np.minimum(a[:, None, 3], b[None, :, 3]) - np.maximum(a[:, None, 1], b[None, :, 1])
    return np.maximum(width, 0) * np.maximum(height, 0)

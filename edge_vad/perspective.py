"""How tall an object usually is at each image row: the ruler for regions, crops and speeds.

A fixed camera above flat ground sees objects of one kind with a height that grows linearly with the image row of
their feet. The line is fitted at build to what moves in normal footage (method.md, section 2: "size against the size
that is usual at that image row").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_vad.strict import check_range
from edge_vad.types import Float32

MIN_HEIGHT = 12.0  # pixels; less holds no appearance
QUANTILE = 0.35  # moving blobs merge people above each other: the lower part of the heights is the single objects
MIN_SAMPLES = 30


@dataclass(frozen=True, slots=True)
class Perspective:
    """height(row) = max(MIN_HEIGHT, offset + slope * row), rows and heights in working pixels."""

    offset: float
    slope: float
    max_height: float

    def __post_init__(self) -> None:
        check_range(-1e6, 1e6, offset=self.offset)
        check_range(0, 1e4, slope=self.slope)
        check_range(1, 1e4, max_height=self.max_height)

    def height(self, row: NDArray[np.floating]) -> Float32:
        """Usual object height in pixels for feet at ``row`` (any shape)."""
        line = self.offset + self.slope * np.asarray(row, dtype=np.float32)
        return np.clip(line, MIN_HEIGHT, self.max_height).astype(np.float32)


def fit_perspective(feet: NDArray[np.floating], heights: NDArray[np.floating], n_rows: int) -> Perspective:
    """Quantile regression of blob heights (n,) on their feet rows (n,), by iteratively reweighted least squares.

    With too few blobs for a line the usual height is their lower quantile everywhere, or a sixth of the picture.
    """
    largest = n_rows * 0.6
    if len(heights) < MIN_SAMPLES:
        usual = float(np.quantile(heights, QUANTILE)) if len(heights) else n_rows / 6
        return Perspective(max(MIN_HEIGHT, usual), 0.0, largest)
    design = np.stack([np.ones(len(feet)), np.asarray(feet, dtype=np.float64)], axis=1)
    line = np.array([np.quantile(heights, QUANTILE), 0.0])
    for _ in range(60):
        residual = heights - design @ line
        weight = np.where(residual > 0, QUANTILE, 1 - QUANTILE) / np.maximum(np.abs(residual), 0.5)
        weighted = design * weight[:, None]
        line = np.linalg.solve(weighted.T @ design + 1e-6 * np.eye(2), weighted.T @ heights)
    if line[1] < 0:  # seen from above: nothing grows towards the lower edge
        line = np.array([np.quantile(heights, QUANTILE), 0.0])
    return Perspective(float(line[0]), float(line[1]), largest)

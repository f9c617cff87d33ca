"""Where in the picture the anomaly is: region scores painted on a coarse grid, or a method's own maps, calibrated."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_vad.calibration import Calibration
from edge_vad.types import Float32, Region

CELLS = 40  # across the longer side of the picture


def score_map(maps: Mapping[str, Float32], calibration: Calibration) -> Float32:
    """A method's own maps (h, w) of raw components, of one shape, as one map in the unit of the score: each cell as if
    its values were the frame's, and 0 where that is more usual than usual."""
    total = sum(calibration.standardise(name, values) for name, values in maps.items())
    return np.maximum(calibration.score(total), 0).astype(np.float32)


def anomaly_map(shape: tuple[int, int], regions: tuple[Region, ...]) -> Float32:
    """Map (h, w) float32 in the unit of the score for a picture of ``shape`` (H, W); 0 where nothing was scored.

    A cell shows the highest region that covers its centre, falling off from the region's centre to its border so that
    the maximum lies on the object.
    """
    cell = max(shape) / CELLS
    rows, columns = max(1, round(shape[0] / cell)), max(1, round(shape[1] / cell))
    y = (np.arange(rows, dtype=np.float32) + 0.5) * shape[0] / rows
    x = (np.arange(columns, dtype=np.float32) + 0.5) * shape[1] / columns
    picture = np.zeros((rows, columns), dtype=np.float32)
    for region in regions:
        if region.score <= 0:
            break  # sorted: the rest is usual
        dx = np.abs(x - (region.x0 + region.x1) / 2) / max((region.x1 - region.x0) / 2, cell)
        dy = np.abs(y - (region.y0 + region.y1) / 2) / max((region.y1 - region.y0) / 2, cell)
        inside = np.clip(1.0 - 0.5 * np.maximum(dy[:, None], dx[None, :]), 0.5, 1.0)
        inside[dy > 1] = 0
        inside[:, dx > 1] = 0
        np.maximum(picture, inside * np.float32(region.score), out=picture)
    return picture

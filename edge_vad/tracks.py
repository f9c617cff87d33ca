"""Short tracks: which region of the last frame a region continues, by overlap along its own velocity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge_vad.motion import intersection
from edge_vad.types import Float32

MIN_OVERLAP = 0.3  # intersection over union


def link(boxes: Float32, before: Float32, velocity: Float32, elapsed_s: float) -> NDArray[np.intp]:
    """For each box (n, 4) the index of the earlier box (m, 4) it continues, or -1.

    velocity: (n, 2) object heights per second; a box is moved back along it by ``elapsed_s`` before it is compared.
    """
    if not len(boxes) or not len(before):
        return np.full(len(boxes), -1, dtype=np.intp)
    height = boxes[:, 3:4] - boxes[:, 1:2]
    moved = boxes - np.tile(velocity * height * np.float32(elapsed_s), 2)
    shared = intersection(moved, before)
    union = _area(moved)[:, None] + _area(before)[None, :] - shared
    overlap = shared / np.maximum(union, 1e-6)
    best = overlap.argmax(axis=1)
    return np.where(overlap[np.arange(len(boxes)), best] > MIN_OVERLAP, best, -1)


def _area(boxes: Float32) -> Float32:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])

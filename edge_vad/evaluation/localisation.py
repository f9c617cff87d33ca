"""Pixel level: does the anomaly map point at the anomaly?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_vad.cameras import open_camera
from edge_vad.errors import SourceError
from edge_vad.evaluation.datasets import LabelledClip
from edge_vad.evaluation.labels import Bools
from edge_vad.evaluation.masks import mask_paths, read_mask
from edge_vad.evaluation.metrics import NAN, THRESHOLD
from edge_vad.evaluation.scores import ClipScores, Floats


def localisation(pairs: Sequence[tuple[LabelledClip, ClipScores]]) -> dict[str, float | int] | None:
    """How often the anomaly map's maximum lies in the mask, over the anomalous frames whose mask is not empty.

    Keys: ``true_positive_frames`` (score at or above the threshold) and ``inside_on_true_positives``, the share of
    them; ``anomalous_frames`` (any score) and ``inside_on_anomalous``; ``chance``, what a random pixel would reach (the
    masks' mean area). A share over no frames is nan. None when there is nothing to compare: no masks, or no peaks.
    Raises LabelError or SourceError when a mask or the footage cannot be read.
    """
    per_clip = [_inside(c, s, c.masks) for c, s in pairs if c.masks is not None and len(s.peaks)]
    if not per_clip:
        return None
    inside, area, found = (np.concatenate(column) for column in zip(*per_clip, strict=True))
    return {
        "true_positive_frames": int(found.sum()),
        "inside_on_true_positives": _mean(inside[found]),
        "anomalous_frames": len(inside),
        "inside_on_anomalous": _mean(inside),
        "chance": _mean(area),
    }


def peak_in_mask(peak: Floats, mask: Bools, size: tuple[int, int]) -> bool:
    """Whether ``peak`` (x, y in an image of ``size`` (width, height)) lies in a mask that may have another size."""
    if not np.isfinite(peak).all():
        return False
    height, width = mask.shape
    column = min(max(int(peak[0] * width / size[0]), 0), width - 1)
    row = min(max(int(peak[1] * height / size[1]), 0), height - 1)
    return bool(mask[row, column])


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of a clip's frames. Raises SourceError when it cannot be read."""
    with open_camera(path) as camera:
        for frame in camera.frames():
            return frame.image.shape[1], frame.image.shape[0]
    raise SourceError(f"{path}: no frame can be read")


def _inside(clip: LabelledClip, scores: ClipScores, masks: Path) -> tuple[Bools, Floats, Bools]:
    """For each anomalous frame with a mask: maximum inside, area of the mask (0..1), score over the threshold."""
    size = image_size(clip.clip.path)
    paths = mask_paths(masks, len(clip.labels), clip.clip.name)
    inside, area, found = [], [], []
    for index in np.flatnonzero(clip.labels):
        mask = read_mask(paths[index])
        if mask.any():
            inside.append(peak_in_mask(scores.peaks[index], mask, size))
            area.append(float(mask.mean()))
            found.append(bool(scores.scores[index] >= THRESHOLD))
    return np.array(inside, dtype=bool), np.array(area, dtype=np.float64), np.array(found, dtype=bool)


def _mean(values: Bools | Floats) -> float:
    return float(values.mean()) if len(values) else NAN

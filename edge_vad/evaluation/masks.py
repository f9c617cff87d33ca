"""Pixel ground truth: one picture for each frame of a clip, not 0 where the anomaly is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_vad.errors import LabelError
from edge_vad.evaluation.labels import Bools
from edge_vad.footage import pictures_in
from edge_vad.plugins import require


def read_mask(path: Path) -> Bools:
    """(h, w) bool, True on the anomaly. Raises LabelError when the picture cannot be read."""
    cv2 = require("cv2", "opencv-python-headless", "reading masks")
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise LabelError(
            f"{path}: not a readable mask (damaged or truncated); copy it again or remove the masks of this clip"
        )
    # An alpha channel is opaque everywhere and says nothing.
    planes = picture[:, :, None] if picture.ndim == 2 else picture[:, :, :3]
    return np.asarray((planes > 0).any(axis=2))


def mask_paths(folder: Path, n_frames: int, clip: str) -> list[Path]:
    """The masks of a clip in the order of its frames. Raises LabelError when there is not one for each frame."""
    paths = pictures_in(folder)
    if len(paths) != n_frames:
        raise LabelError(
            f"{folder}: {len(paths)} masks for the {n_frames} frames of clip {clip!r}; complete or remove this folder"
        )
    return paths


def mask_labels(folder: Path, n_frames: int, clip: str) -> Bools:
    """(n_frames,) bool, True where the frame's mask is not empty. Raises LabelError as `mask_paths` and `read_mask`."""
    return np.array([read_mask(path).any() for path in mask_paths(folder, n_frames, clip)], dtype=bool)

"""The frames worth looking at, with the anomaly map laid over them."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_vad.cameras import open_camera
from edge_vad.errors import SourceError
from edge_vad.evaluation.datasets import LabelledClip
from edge_vad.evaluation.labels import Bools
from edge_vad.evaluation.masks import mask_paths, read_mask
from edge_vad.evaluation.metrics import runs
from edge_vad.evaluation.scores import ClipScores, Floats
from edge_vad.plugins import require
from edge_vad.types import UInt8

Pairs = Sequence[tuple[LabelledClip, ClipScores]]

MAX_WIDTH = 560
MIN_GAP = 20
# Map values from here are tinted, in the unit of the score; the colour is full at FULL_COLOUR.
FIRST_COLOUR, FULL_COLOUR = 0.5, 2.0
_YELLOW, _RED, _CYAN = (255, 221, 51), (214, 24, 24), (64, 224, 255)


@dataclass(frozen=True, slots=True)
class Pick:
    """One frame to show: the clip's place in the data set, the frame's index from 0, and its score."""

    clip: int
    index: int
    score: float


def worst_misses(pairs: Pairs, limit: int = 6) -> list[Pick]:
    """Anomalous frames with the lowest scores: one for each true event, few for each clip, lowest first."""
    picks = []
    for clip, (labelled, scores) in enumerate(pairs):
        lowest = [start + int(scores.scores[start:stop].argmin()) for start, stop in runs(labelled.labels)]
        events = [Pick(clip, index, float(scores.scores[index])) for index in lowest]
        picks += sorted(events, key=lambda pick: pick.score)[: _per_clip(pairs, limit)]
    return sorted(picks, key=lambda pick: pick.score)[:limit]


def worst_false_alarms(pairs: Pairs, limit: int = 6) -> list[Pick]:
    """Normal frames with the highest scores: few for each clip and MIN_GAP frames apart, highest first."""
    return _highest(pairs, [~labelled.labels for labelled, _ in pairs], _per_clip(pairs, limit), limit)


def best_detections(pairs: Pairs, limit: int = 4) -> list[Pick]:
    """Anomalous frames with the highest scores, one for each clip, highest first."""
    return _highest(pairs, [labelled.labels for labelled, _ in pairs], 1, limit)


def _per_clip(pairs: Pairs, limit: int) -> int:
    return max(2, ceil(limit / len(pairs)))


def _highest(pairs: Pairs, allowed: Sequence[Bools], per_clip: int, limit: int) -> list[Pick]:
    picks = []
    for clip, (_, scores) in enumerate(pairs):
        left = np.where(allowed[clip], scores.scores, -np.inf)
        for _ in range(per_clip):
            index = int(left.argmax())
            if left[index] == -np.inf:
                break
            picks.append(Pick(clip, index, float(left[index])))
            left[max(0, index - MIN_GAP + 1) : index + MIN_GAP] = -np.inf
    return sorted(picks, key=lambda pick: -pick.score)[:limit]


def embedded(pairs: Pairs, picks: Iterable[Pick]) -> dict[Pick, str]:
    """Each picked frame as a ``data:`` address of a JPEG with its overlay. Each clip is read once, up to its last pick.

    Raises SourceError when the footage, LabelError when a mask cannot be read.
    """
    by_clip: dict[int, list[Pick]] = {}
    for pick in picks:
        by_clip.setdefault(pick.clip, []).append(pick)
    found = {}
    for clip, wanted in by_clip.items():
        images = frames_at(pairs[clip][0].clip.path, {pick.index for pick in wanted})
        for pick in wanted:
            found[pick] = _data_uri(_overlaid(pairs[clip], pick.index, images[pick.index]))
    return found


def frames_at(path: Path, indices: set[int]) -> dict[int, UInt8]:
    """The images (H, W, 3) uint8 RGB of a clip at ``indices``. Raises SourceError when it ends before the last one."""
    found = {}
    with open_camera(path) as camera:
        for frame in camera.frames():
            if frame.index in indices:
                found[frame.index] = frame.image
            if len(found) == len(indices):
                return found
    raise SourceError(f"{path}: ends before frame {max(indices)}; it was longer when it was scored")


def overlay(image: UInt8, anomaly_map: NDArray[np.floating] | None, peak: Floats | None, mask: Bools | None) -> UInt8:
    """(h, w, 3) uint8 RGB, at most MAX_WIDTH wide: map from yellow to red, outline of the mask in cyan, peak as a ring.

    image (H, W, 3) uint8 RGB; map and mask of any size, stretched over it; peak (2,) x, y in pixels of the image.
    """
    cv2 = require("cv2", "opencv-python-headless", "drawing pictures")
    height, width = image.shape[:2]
    scale = min(1.0, MAX_WIDTH / width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    drawn: UInt8 = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image.copy()
    if anomaly_map is not None and anomaly_map.size:
        drawn = _tinted(drawn, cv2.resize(anomaly_map.astype(np.float32), size, interpolation=cv2.INTER_LINEAR))
    if mask is not None:
        outline = cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(outline, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, contours, -1, _CYAN, 1, cv2.LINE_AA)
    if peak is not None and np.isfinite(peak).all():
        centre = (round(float(peak[0]) * scale), round(float(peak[1]) * scale))
        cv2.circle(drawn, centre, max(5, size[0] // 60), (255, 255, 255), max(1, size[0] // 280), cv2.LINE_AA)
    return drawn


def _tinted(image: UInt8, values: NDArray[np.float32]) -> UInt8:
    strength = np.clip((values - FIRST_COLOUR) / (FULL_COLOUR - FIRST_COLOUR), 0, 1)[:, :, None]
    colour = np.array(_YELLOW, np.float32) * (1 - strength) + np.array(_RED, np.float32) * strength
    # Tint sets in steeply, so that the edge of what was found is seen, and stays transparent enough to see what it was.
    alpha = 0.6 * np.clip(3 * strength, 0, 1)
    return np.asarray(image * (1 - alpha) + colour * alpha + 0.5).astype(np.uint8)


def _overlaid(pair: tuple[LabelledClip, ClipScores], index: int, image: UInt8) -> UInt8:
    labelled, scores = pair
    mask = None
    if labelled.masks is not None and labelled.labels[index]:
        mask = read_mask(mask_paths(labelled.masks, len(labelled.labels), labelled.clip.name)[index])
    anomaly_map = scores.maps[index] if scores.maps else None
    return overlay(image, anomaly_map, scores.peaks[index] if len(scores.peaks) else None, mask)


def _data_uri(image: UInt8) -> str:
    cv2 = require("cv2", "opencv-python-headless", "drawing pictures")
    good, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(image[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    if not good:
        raise SourceError(f"a picture of {image.shape[1]}x{image.shape[0]} pixels cannot be encoded as JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(jpeg.tobytes()).decode("ascii")

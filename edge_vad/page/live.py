"""One camera as the page shows it: its newest picture, drawn when somebody looks, and its scores of ten minutes."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_vad.plugins import require
from edge_vad.types import Float32, Frame, Result, UInt8

WINDOW_S = 600.0
PER_S = 2  # scores that are kept, the highest of each half second
PICTURE_S = 0.2  # between two pictures of one camera, however many look
MAX_SIDE = 640
THUMBNAIL_SIDE = 100  # of the shorter side, at least: twice what a page shows, for fine screens
JPEG_QUALITY = 75
# Map values from here are tinted, in the unit of the score; the colour is full at FULL_COLOUR.
FIRST_COLOUR, FULL_COLOUR, STRONGEST = 0.5, 2.0, 0.5
_RED, _PALE, _WHITE = (38, 38, 224), (214, 214, 214), (255, 255, 255)  # blue, green, red


@dataclass(frozen=True, slots=True)
class _Picture:
    """A JPEG. key: the frame it shows. drawn_s: when."""

    key: tuple[int, float]
    drawn_s: float
    jpeg: bytes


class Live:
    """`see` belongs to the detection loop and returns at once; the rest belongs to the clients' threads."""

    def __init__(self) -> None:
        self._newest: tuple[Frame, Result, float] | None = None
        self._scores: deque[tuple[int, float]] = deque(maxlen=int(WINDOW_S * PER_S))
        self._scoring, self._drawing = threading.Lock(), threading.Lock()
        self._pictures: dict[bool, _Picture] = {}
        self._drawn_s = 0.0

    def see(self, frame: Frame, result: Result) -> None:
        """Take the newest frame and its score."""
        self._newest = (frame, result, time.monotonic())
        slot, score = int(result.timestamp * PER_S), result.score
        with self._scoring:
            scores = self._scores
            if not scores or slot > scores[-1][0]:
                scores.append((slot, score))
            elif slot < scores[-1][0]:  # footage from the beginning
                scores.clear()
                scores.append((slot, score))
            elif score > scores[-1][1]:
                scores[-1] = (slot, score)

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) of the picture as it is shown; None before the first."""
        newest = self._newest
        return None if newest is None else shown_size(newest[0].image)

    def scores(self) -> dict[str, Any]:
        """Plain values: times in seconds on the frames' clock, scores, and what that clock says now."""
        with self._scoring:
            scores = list(self._scores)
        newest = self._newest
        if newest is None:
            return {"now_s": None, "window_s": WINDOW_S, "threshold": 1.0, "t": [], "score": []}
        _, result, seen_s = newest
        now_s = result.timestamp + time.monotonic() - seen_s
        kept = [(slot / PER_S, score) for slot, score in scores if slot / PER_S >= now_s - WINDOW_S]
        return {
            "now_s": round(now_s, 2),
            "window_s": WINDOW_S,
            "threshold": 1.0,
            "t": [t for t, _ in kept],
            "score": [round(score, 3) for _, score in kept],
        }

    def picture(self, overlay: bool) -> bytes | None:
        """The newest picture as JPEG, with map and boxes or without; None before the first.

        Drawn at most once per PICTURE_S for everybody; in between the last one is handed out again.
        """
        with self._drawing:
            newest, last = self._newest, self._pictures.get(overlay)
            if newest is None:
                return None
            if last and (last.key == _key(newest[0]) or time.monotonic() - last.drawn_s < PICTURE_S):
                return last.jpeg
            time.sleep(max(0.0, self._drawn_s + PICTURE_S - time.monotonic()))  # the other kind was drawn just now
            frame, result, _ = self._newest or newest
            jpeg = draw(frame.image, result if overlay else None)
            self._drawn_s = time.monotonic()
            self._pictures[overlay] = _Picture(_key(frame), self._drawn_s, jpeg)
            return jpeg


def shown_size(image: UInt8) -> tuple[int, int]:
    """(width, height) of a picture, at most MAX_SIDE."""
    height, width = image.shape[:2]
    scale = min(1.0, MAX_SIDE / max(height, width))
    return max(1, round(width * scale)), max(1, round(height * scale))


def draw(image: UInt8, result: Result | None) -> bytes:
    """JPEG of an image (H, W, 3) uint8 RGB; with a result, its map as a red tint and its regions as boxes."""
    cv2 = require("cv2", "opencv-python-headless", "the status page")
    size = shown_size(image)
    scale = size[0] / image.shape[1]
    if size != image.shape[1::-1]:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    shown: UInt8 = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if result is not None:
        _tint(cv2, shown, result.anomaly_map)
        _draw_boxes(cv2, shown, result, scale)
    return bytes(cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])


def thumbnail(jpeg: bytes) -> bytes | None:
    """A small JPEG of a large one; None when it is none. It is decoded at an eighth, a quarter or half of its size."""
    cv2 = require("cv2", "opencv-python-headless", "the status page")
    data = np.frombuffer(jpeg, np.uint8)
    for scale in (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_COLOR):
        small = cv2.imdecode(data, scale) if len(data) else None
        if small is None:
            return None
        if min(small.shape[:2]) >= THUMBNAIL_SIDE or scale == cv2.IMREAD_COLOR:
            break
    return bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1])


def _tint(cv2: Any, shown: UInt8, anomaly_map: Float32) -> None:
    """Lay the map over the picture, in place; nothing is computed where there is nothing to show."""
    strength = np.clip((anomaly_map - FIRST_COLOUR) / (FULL_COLOUR - FIRST_COLOUR), 0, 1)
    if not strength.any():
        return
    height, width = shown.shape[:2]
    alpha = cv2.resize((255 * STRONGEST * np.sqrt(strength)).astype(np.uint8), (width, height))
    x, y, w, h = cv2.boundingRect(alpha)
    part, share = shown[y : y + h, x : x + w], alpha[y : y + h, x : x + w, None].astype(np.uint16)
    part[:] = (part * (255 - share) + np.array(_RED, np.uint16) * share) // 255


def _draw_boxes(cv2: Any, shown: UInt8, result: Result, scale: float) -> None:
    """Regions over the threshold in red, the usual ones thin and pale."""
    for region in reversed(result.regions):  # the highest on top
        corners = [round(value * scale) for value in (region.x0, region.y0, region.x1 - 1, region.y1 - 1)]
        first, last = (corners[0], corners[1]), (corners[2], corners[3])
        if region.score >= 1:
            cv2.rectangle(shown, first, last, _WHITE, 4)
            cv2.rectangle(shown, first, last, _RED, 2)
        else:
            cv2.rectangle(shown, first, last, _PALE, 1)


def _key(frame: Frame) -> tuple[int, float]:
    return frame.index, frame.timestamp

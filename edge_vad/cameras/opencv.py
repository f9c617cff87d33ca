"""A video file, read through OpenCV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge_vad.cameras.base import Camera
from edge_vad.cameras.images import frame_from_bgr
from edge_vad.errors import SourceError
from edge_vad.plugins import require
from edge_vad.types import Frame

FALLBACK_FPS = 25.0


class VideoFile(Camera):
    """A video (mp4, avi, mpg, mkv). A file that ends before the frame count of its header is reported, not ignored."""

    def __init__(self, location: str, fps: float | None = None, size: tuple[int, int] | None = None) -> None:
        self._cv2 = require("cv2", "opencv-python-headless", "reading videos")
        self._path = Path(location)
        if not self._path.is_file():
            raise SourceError(f"{location}: no such video file")
        self._capture = self._cv2.VideoCapture(str(self._path))
        if not self._capture.isOpened():
            raise SourceError(
                f"{location}: not a readable video (damaged, truncated or an unknown codec); copy or convert it"
            )
        stated = float(self._capture.get(self._cv2.CAP_PROP_FPS))
        self.fps = fps or (stated if 0 < stated <= 1000 else FALLBACK_FPS)
        count = int(self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT))
        self.n_frames = count if count > 0 else None

    def frames(self) -> Iterator[Frame]:
        index = 0
        shape: tuple[int, ...] | None = None
        while True:
            good, bgr = self._capture.read()
            if not good:
                break
            if shape is not None and bgr.shape != shape:
                raise SourceError(f"{self._path}: the picture size changes at frame {index}; one clip has one size")
            shape = bgr.shape
            yield frame_from_bgr(self._cv2, bgr, index, self.fps)
            index += 1
        # Containers overstate by a frame or two (an index entry without a picture); a cut file lacks far more.
        if index == 0 or (self.n_frames is not None and index < 0.98 * self.n_frames - 2):
            raise SourceError(
                f"{self._path}: truncated: {index} of {self.n_frames or 'unknown'} frames can be read; record it again"
            )

    def close(self) -> None:
        self._capture.release()

"""A folder of numbered pictures as a camera."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edge_vad.cameras.base import Camera
from edge_vad.errors import SourceError
from edge_vad.footage import pictures_in
from edge_vad.plugins import require
from edge_vad.types import Frame, UInt8

DEFAULT_FPS = 10.0  # pictures carry no frame rate; state it with --fps


class ImageFolder(Camera):
    """The pictures (jpg, png, tif, bmp) of one folder in natural order. Grey is converted to RGB, 16-bit is refused."""

    def __init__(self, location: str, fps: float | None = None, size: tuple[int, int] | None = None) -> None:
        self._cv2 = require("cv2", "opencv-python-headless", "reading pictures")
        self._paths = pictures_in(Path(location))
        if not self._paths:
            raise SourceError(f"{location}: no pictures (jpg, png, tif, bmp) in this folder")
        self.n_frames = len(self._paths)
        self.fps = fps or DEFAULT_FPS

    def frames(self) -> Iterator[Frame]:
        shape: tuple[int, ...] | None = None
        for index, path in enumerate(self._paths):
            bgr = self._read(path)
            if shape is not None and bgr.shape != shape:
                raise SourceError(
                    f"{path}: {bgr.shape[1]}x{bgr.shape[0]} pixels, but the pictures before it have {shape[1]}x{shape[0]}; "
                    "one clip has one size"
                )
            shape = bgr.shape
            yield frame_from_bgr(self._cv2, bgr, index, self.fps)

    def _read(self, path: Path) -> UInt8:
        picture = self._cv2.imread(str(path), self._cv2.IMREAD_UNCHANGED)
        if picture is None:
            raise SourceError(f"{path}: not a readable picture (damaged or truncated); remove it or copy it again")
        if picture.dtype != np.uint8:
            raise SourceError(f"{path}: {picture.dtype} pixels; only 8-bit pictures are read, convert it first")
        if picture.ndim == 2:
            return self._cv2.cvtColor(picture, self._cv2.COLOR_GRAY2BGR)
        return np.ascontiguousarray(picture[:, :, :3])


def frame_from_bgr(cv2: object, bgr: UInt8, index: int, fps: float) -> Frame:
    """A frame from an OpenCV picture, (H, W, 3) uint8 BGR."""
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)  # type: ignore[attr-defined]
    luma = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)  # type: ignore[attr-defined]
    return Frame(image=rgb, luma=luma, timestamp=index / fps, index=index)

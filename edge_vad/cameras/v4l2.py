"""A USB or other V4L2 camera, read through OpenCV."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from edge_vad.cameras.base import Camera
from edge_vad.cameras.images import frame_from_bgr
from edge_vad.errors import SourceError
from edge_vad.plugins import require
from edge_vad.types import Frame

DEFAULT_FPS = 30.0
# OpenCV gives a buffer back to the driver after it has converted the frame. With one buffer, the driver has none until
# then, and a USB camera misses the frame that begins meanwhile: half the rate. With two, a frame is one frame late at most.
BUFFERS = 2
USB2_BYTES_PER_S = 20e6  # what a camera gets through USB 2; uncompressed YUYV has two bytes per pixel
MAX_AGE_S = 10.0


class V4l2Device(Camera):
    """``/dev/video0``, or ``0``, or ``v4l2:/dev/v4l/by-id/...``, which stays the same when cameras are plugged around.

    Uncompressed pictures (YUYV) where they fit through USB 2, else MJPG, and the other one where the device does not
    give the size and rate with the first. What it really gives is in `fps` and in the frames: a size that the device
    does not have is not made up. Time stamps are the driver's. OpenCV does not pass on the driver's frame numbers:
    frames that the driver dropped are not counted, those that could not be decoded are.
    """

    live = True

    def __init__(self, location: str, fps: float | None = None, size: tuple[int, int] | None = None) -> None:
        self._cv2 = require("cv2", "opencv-python-headless", "reading V4L2 cameras")
        self._path = Path(f"/dev/video{location}" if location.isdigit() else location)
        if not self._path.is_char_device():
            found = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
            raise SourceError(f"{self._path}: no such camera; is it plugged in? (devices: {found})")
        if not os.access(self._path, os.R_OK | os.W_OK):
            raise SourceError(f"{self._path}: no permission; add the user to the group video")
        self._capture = self._cv2.VideoCapture(str(self._path), self._cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise SourceError(f"{self._path}: not a camera, or in use; see v4l2-ctl --list-devices and fuser {self._path}")
        self._capture.set(self._cv2.CAP_PROP_BUFFERSIZE, BUFFERS)
        self._negotiate(fps, size)
        stated = float(self._capture.get(self._cv2.CAP_PROP_FPS))
        self.fps = stated if 0 < stated <= 1000 else fps or DEFAULT_FPS

    def frames(self) -> Iterator[Frame]:
        index = -1
        shape: tuple[int, ...] | None = None
        while True:
            if not self._capture.grab():
                raise SourceError(f"{self._path}: no more frames; check the plug, the cable and the power (dmesg)")
            index += 1
            timestamp = self._exposed_at(time.monotonic())
            good, bgr = self._capture.retrieve()
            if not good or bgr is None:
                continue  # a damaged picture
            if shape is not None and bgr.shape != shape:
                raise SourceError(f"{self._path}: the picture size changed to {bgr.shape[1]}x{bgr.shape[0]}")
            shape = bgr.shape
            yield replace(frame_from_bgr(self._cv2, bgr, index, self.fps), timestamp=timestamp)

    def close(self) -> None:
        self._capture.release()

    def _negotiate(self, fps: float | None, size: tuple[int, int] | None) -> None:
        """Choose a pixel format. Where none gives the size and the rate, the first that the device has."""
        fits = size is None or 2 * size[0] * size[1] * (fps or DEFAULT_FPS) <= USB2_BYTES_PER_S
        known = []
        for code in ("YUYV", "MJPG") if fits else ("MJPG", "YUYV"):
            if self._ask(code, fps, size):
                known.append(code)
                if self._gives(fps, size):
                    return
        if known:
            self._ask(known[0], fps, size)

    def _ask(self, code: str, fps: float | None, size: tuple[int, int] | None) -> bool:
        """Ask the device for a pixel format, a size and a rate; whether it has the format."""
        cv2, capture = self._cv2, self._capture
        number = cv2.VideoWriter_fourcc(*code)
        capture.set(cv2.CAP_PROP_FOURCC, number)
        if size:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
        if fps:
            capture.set(cv2.CAP_PROP_FPS, fps)
        return int(capture.get(cv2.CAP_PROP_FOURCC)) == number

    def _gives(self, fps: float | None, size: tuple[int, int] | None) -> bool:
        cv2, capture = self._cv2, self._capture
        given = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        return (size is None or given == size) and (fps is None or capture.get(cv2.CAP_PROP_FPS) >= 0.9 * fps)

    def _exposed_at(self, now: float) -> float:
        """The driver's time stamp of the frame that was grabbed, in seconds of ``time.monotonic()``."""
        stated = float(self._capture.get(self._cv2.CAP_PROP_POS_MSEC)) / 1000
        return stated if now - MAX_AGE_S <= stated <= now else now  # a driver may use another clock

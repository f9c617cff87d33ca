"""A network camera over RTSP, decoded by the FFmpeg inside OpenCV.

OpenCV and not PyAV: both bring their own FFmpeg (86 and 99 MB installed), and OpenCV is needed for colours and video
files anyway. Decoding is done by the processor; for the decoder of a Jetson see `edge_vad.cameras.gstreamer`.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace

from edge_vad.cameras.base import Camera
from edge_vad.cameras.images import frame_from_bgr
from edge_vad.errors import SourceError
from edge_vad.plugins import require
from edge_vad.types import Frame

TIMEOUT_MS = 5000
DECODER_THREADS = 2  # every further one delays the pictures by one frame
FALLBACK_FPS = 25.0
MAX_LAG_S = 1.0


class RtspStream(Camera):
    """``rtsp://user:password@host/path``: one stream of a network camera; its size and frame rate are set in the camera.

    Packets come over TCP: over UDP, each lost one tears the picture until the next key frame. Whoever needs UDP sets
    OPENCV_FFMPEG_CAPTURE_OPTIONS='rtsp_transport;udp', which goes first.

    FFmpeg needs about 1.2 s to learn what is in the stream. The frames of that time come at once, from the first key
    frame on; FFmpeg's option nobuffer would throw them away and wait for the next key frame, with some cameras 10 s.
    """

    live = True

    def __init__(self, location: str, fps: float | None = None, size: tuple[int, int] | None = None) -> None:
        self._name = masked(location)
        if not location.startswith(("rtsp://", "rtsps://")):
            raise SourceError(f"{self._name}: not an address of the form rtsp://user:password@host/path")
        self._cv2 = require("cv2", "opencv-python-headless", "reading RTSP streams")
        os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")  # read when a stream is opened
        options = {
            self._cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: TIMEOUT_MS,
            self._cv2.CAP_PROP_READ_TIMEOUT_MSEC: TIMEOUT_MS,
            self._cv2.CAP_PROP_N_THREADS: DECODER_THREADS,
        }
        flat = [int(value) for option in options.items() for value in option]
        self._capture = self._cv2.VideoCapture(location, self._cv2.CAP_FFMPEG, flat)
        if not self._capture.isOpened():
            raise SourceError(
                f"{self._name}: no stream within {TIMEOUT_MS // 1000} s; check the network, the address, user and password"
            )
        stated = float(self._capture.get(self._cv2.CAP_PROP_FPS))
        self.fps = stated if 0 < stated <= 1000 else fps or FALLBACK_FPS

    def frames(self) -> Iterator[Frame]:
        clock = StreamClock()
        index = 0
        shape: tuple[int, ...] | None = None
        while True:
            good, bgr = self._capture.read()
            if not good:
                raise SourceError(f"{self._name}: the stream ended or stalled; check the camera's power and the network")
            if shape is not None and bgr.shape != shape:
                raise SourceError(f"{self._name}: the picture size changed to {bgr.shape[1]}x{bgr.shape[0]}")
            shape = bgr.shape
            position_s = float(self._capture.get(self._cv2.CAP_PROP_POS_MSEC)) / 1000
            timestamp = clock.at(position_s, time.monotonic())
            yield replace(frame_from_bgr(self._cv2, bgr, index, self.fps), timestamp=timestamp)
            index += 1

    def close(self) -> None:
        self._capture.release()


class StreamClock:
    """Positions in a stream to seconds of ``time.monotonic()``.

    Arrival says little: frames come in bursts after connecting and after a hiccup. The stream's own positions have the
    right distances; they are laid so that no frame comes from the future. The camera's clock runs a little faster or
    slower than ours, and may jump: a frame that seems older than MAX_LAG_S lays them anew.
    """

    def __init__(self) -> None:
        self._offset_s = math.nan
        self._last_s = -math.inf

    def at(self, position_s: float, now: float) -> float:
        """Time of a frame at that position that arrived now. Positions of 0 mean that the stream did not say."""
        stamp = position_s + self._offset_s
        if position_s <= 0:
            stamp = now
        elif not now - MAX_LAG_S <= stamp <= now:
            self._offset_s, stamp = now - position_s, now
        self._last_s = max(self._last_s, stamp)
        return self._last_s


def masked(text: str) -> str:
    """The text without the users and passwords of addresses and GStreamer elements in it."""
    text = re.sub(r"(\w+://)[^\s\"']*@", r"\1***@", text)
    return re.sub(r"\b(user-id|user-pw|password)=(\"[^\"]*\"|\S+)", r"\1=***", text)

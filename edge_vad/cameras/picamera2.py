"""The camera of a Raspberry Pi, through picamera2."""

from __future__ import annotations

import contextlib
import importlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import TimeoutError as NotYet  # the builtin one only since Python 3.11
from types import ModuleType
from typing import Any

import numpy as np

from edge_vad.cameras.base import Camera
from edge_vad.errors import MissingPackageError, SourceError
from edge_vad.plugins import require
from edge_vad.types import Frame, UInt8

DEFAULT_FPS = 30.0
DEFAULT_SIZE = (1280, 720)
BUFFERS = 4
LORES_ROWS = 240
POLL_S, TIMEOUT_S = 0.5, 5.0
# How OpenCV makes R, G, B of packed pixels. libcamera names bytes from the highest down: BGR888 lies as R, G, B.
PACKED = {"BGR888": None, "RGB888": "COLOR_BGR2RGB", "XBGR8888": "COLOR_RGBA2RGB", "XRGB8888": "COLOR_BGRA2RGB"}
PLANAR = ("YUV420", "NV12")  # the luma plane comes first


class RaspberryPiCamera(Camera):
    """``picamera2:0``, or ``picamera2:ID`` with the Id or the model that ``rpicam-hello --list-cameras`` shows.

    The image processor of the Pi delivers each frame twice: ``main`` in RGB and the size that is asked for, ``lores`` in
    YUV420 and a fraction of it, whose first plane is the luma. The size, format and row length that libcamera made of
    the request are read back: it adjusts them without a word. Time stamps are those of the sensor; picamera2 drops
    frames that nobody waits for and has no counter for it, so gaps are counted by them.

    picamera2 leaks contiguous memory each time a camera is opened: one more reason for a process of its own, which
    `edge_vad.capture` starts anew.
    """

    live = True

    def __init__(self, location: str, fps: float | None = None, size: tuple[int, int] | None = None) -> None:
        self._name = f"picamera2:{location}"
        self._cv2 = require("cv2", "opencv-python-headless", "reading a Raspberry Pi camera")
        self._module, libcamera = _import()
        number = self._find(location or "0")
        try:
            self._camera = self._module.Picamera2(number)
        except Exception as error:  # picamera2 raises RuntimeError, IndexError and what libcamera throws
            raise SourceError(f"{self._name}: cannot be opened; is another program using it? ({_cause(error)})") from error
        try:
            self._configure(libcamera, size or DEFAULT_SIZE)
            self._period_us = self._set_rate(fps or DEFAULT_FPS)
            self._camera.start()
        except SourceError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise SourceError(f"{self._name}: cannot be set up for {size or DEFAULT_SIZE}: {_cause(error)}") from error
        self.fps = 1e6 / self._period_us

    def frames(self) -> Iterator[Frame]:
        index = 0
        last: float | None = None
        while True:
            request = self._next()
            try:
                metadata = request.get_metadata()
                image, luma = self._image(request), self._luma(request)
            finally:
                request.release()  # or the camera stalls as soon as all buffers are held
            stamp = metadata.get("SensorTimestamp")
            timestamp = time.monotonic() if stamp is None else stamp / 1e9
            if last is not None:
                period_s = metadata.get("FrameDuration", self._period_us) / 1e6
                index += max(1, round((timestamp - last) / period_s))
            last = timestamp
            yield Frame(image, luma, timestamp, index)

    def close(self) -> None:
        with contextlib.suppress(Exception):  # a camera whose cable came off cannot be closed in order
            self._camera.cancel_all_and_flush()
            self._camera.close()

    def _find(self, location: str) -> int:
        """The number of a camera by its number, Id or model."""
        cameras = self._module.Picamera2.global_camera_info()
        if not cameras:
            raise SourceError(f"{self._name}: no camera found; check the ribbon cable, then: rpicam-hello --list-cameras")
        for number, camera in enumerate(cameras):
            if location in (str(number), camera["Id"], camera.get("Model")):
                return number
        found = ", ".join(f"{number} = {camera.get('Model')}, {camera['Id']}" for number, camera in enumerate(cameras))
        raise SourceError(f"{self._name}: no such camera (found: {found})")

    def _configure(self, libcamera: ModuleType, size: tuple[int, int]) -> None:
        """Set up both streams, and read back what they have become."""
        width, height = (side // 2 * 2 for side in size)
        configuration = self._camera.create_video_configuration(
            main={"size": (width, height), "format": "BGR888"},
            lores={"size": lores_size(width, height), "format": "YUV420"},
            raw=None,
            # Full range, and the weights of the grey that footage is converted to: what the bundle was built from. The
            # default of a video would be 16..235.
            colour_space=libcamera.ColorSpace.Sycc(),
            buffer_count=BUFFERS,
            queue=False,  # a frame from after the question, not the one that was kept
            display=None,
            encode=None,
        )
        self._camera.configure(configuration)
        given = self._camera.camera_configuration()
        self._main, self._lores = given["main"], given["lores"]
        if self._main["format"] not in (*PACKED, *PLANAR) or self._lores["format"] not in PLANAR:
            raise SourceError(
                f"{self._name}: delivers {self._main['format']} and {self._lores['format']}, expected one of "
                f"{', '.join((*PACKED, *PLANAR))}, and one of {', '.join(PLANAR)}; a USB camera is read as /dev/video0"
            )

    def _set_rate(self, fps: float) -> int:
        """Ask for a frame rate within the limits of the sensor's mode, which depend on the size; microseconds per frame."""
        period_us = round(1e6 / fps)
        limits = self._camera.camera_controls.get("FrameDurationLimits")
        if limits:
            period_us = min(max(period_us, int(limits[0])), int(limits[1]))
            self._camera.set_controls({"FrameDurationLimits": (period_us, period_us)})
        return period_us

    def _next(self) -> Any:
        """The next frame of the camera. A question that timed out stays in its queue: the same one is asked again."""
        job = self._camera.capture_request(wait=False)
        until = time.monotonic() + TIMEOUT_S
        while time.monotonic() < until:
            with contextlib.suppress(NotYet):
                return job.get_result(timeout=POLL_S)
        raise SourceError(f"{self._name}: no frame for {TIMEOUT_S:.0f} s; check the ribbon cable and the power (dmesg)")

    def _image(self, request: Any) -> UInt8:
        form, cv2 = self._main["format"], self._cv2
        conversion = PACKED.get(form)
        with self._module.MappedArray(request, "main", write=False) as mapped:
            if form in PLANAR:
                return cv2.cvtColor(cv2.merge(self._planes(mapped.array)), cv2.COLOR_YCrCb2RGB)
            if conversion is None:
                return np.array(mapped.array, order="C")
            return cv2.cvtColor(mapped.array, getattr(cv2, conversion))

    def _planes(self, array: UInt8) -> list[UInt8]:
        """Luma, Cr and Cb in full size. OpenCV's own conversion of these formats takes them for 16..235."""
        width, height = self._main["size"]
        colour = array[height : height * 3 // 2]
        if self._main["format"] == "NV12":
            pairs = colour[:, :width].reshape(height // 2, width // 2, 2)
            blue, red = pairs[..., 0], pairs[..., 1]
        else:  # YUV420 comes with the padding of its rows; half of it belongs to each row of these two planes
            blue, red = (plane[:, : width // 2] for plane in colour.reshape(2, height // 2, -1))
        large = [self._cv2.resize(np.ascontiguousarray(plane), (width, height)) for plane in (red, blue)]
        return [np.ascontiguousarray(array[:height, :width]), *large]

    def _luma(self, request: Any) -> UInt8:
        width, height = self._lores["size"]
        with self._module.MappedArray(request, "lores", write=False) as mapped:
            return np.array(mapped.array[:height, :width], order="C")


def lores_size(width: int, height: int) -> tuple[int, int]:
    """A quarter of the picture or half of it, even, and no fewer than LORES_ROWS rows; else the picture's own size."""
    divisor = next((n for n in (4, 2) if height // n >= LORES_ROWS), 1)
    return width // divisor // 2 * 2, height // divisor // 2 * 2


def _import() -> tuple[ModuleType, ModuleType]:
    os.environ.setdefault("LIBCAMERA_LOG_LEVELS", "*:WARN")  # else some ten lines each time the camera is opened
    try:
        return importlib.import_module("picamera2"), importlib.import_module("libcamera")
    except ImportError as error:
        raise MissingPackageError(
            "the Raspberry Pi camera needs picamera2 and libcamera of Raspberry Pi OS: apt install python3-picamera2, and "
            f"a virtual environment made with --system-site-packages ({error})"
        ) from error


def _cause(error: BaseException) -> str:
    """What began it: picamera2 wraps its errors, and the outermost says nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__

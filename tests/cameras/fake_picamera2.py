"""The part of the picamera2 API (0.3.38) that edge-vad uses, as a script of frames: no libcamera, no thread, no waiting.

It behaves as the real one was read and seen to: sizes must be even, a stream may be adjusted to another size and format
without a word, rows are padded, YUV420 keeps its padding, a question that timed out stays in the queue, frames stop
when all buffers are held. test_picamera2.py runs the real one too, where there is one.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pytest

from edge_vad.types import UInt8

Stream = dict[str, Any]


@dataclass
class Device:
    """What the camera in front of the API does.

    stamps_ns: SensorTimestamp of each frame; None: a wait for a frame that times out. adjust: what libcamera makes of
    the two streams that were asked for. padding: bytes behind each row.
    """

    scene: UInt8
    stamps_ns: list[int | None] = field(default_factory=lambda: [33_333_000 * n for n in range(1, 9)])
    adjust: Callable[[Stream, Stream], None] = lambda main, lores: None
    padding: int = 0
    cameras: tuple[Stream, ...] = ({"Id": "/base/axi/i2c@80000/imx708@1a", "Model": "imx708", "Num": 0},)
    limits: tuple[int, int, Any] | None = (16_666, 1_000_000, None)
    metadata: Stream = field(default_factory=dict)
    opening_error: Exception | None = None
    configuring_error: Exception | None = None
    opened: list[Picamera2] = field(default_factory=list)


class Request:
    """One frame: both streams and what the sensor says of it."""

    def __init__(self, camera: Picamera2, stamp_ns: int) -> None:
        self.camera, self.stamp_ns = camera, stamp_ns
        camera.held += 1

    def get_metadata(self) -> Stream:
        return {"SensorTimestamp": self.stamp_ns} | self.camera.device.metadata

    def release(self) -> None:
        self.camera.held -= 1


class Job:
    """A question for the next frame."""

    def __init__(self, camera: Picamera2) -> None:
        self._camera = camera

    def get_result(self, timeout: float | None = None) -> Request:
        camera = self._camera
        assert timeout is not None, "waits for ever when the cable comes off"
        assert camera.jobs[0] is self, "another question was asked before this one was answered"
        if camera.held >= camera.configuration["buffer_count"]:
            raise TimeoutError
        stamp = camera.device.stamps_ns.pop(0) if camera.device.stamps_ns else None
        if stamp is None:
            raise TimeoutError
        camera.jobs.pop(0)
        return Request(camera, stamp)


class Picamera2:
    device: Device

    def __init__(self, camera_num: int = 0) -> None:
        if self.device.opening_error:
            raise RuntimeError("Camera __init__ sequence did not complete.") from self.device.opening_error
        self.number = camera_num
        self.jobs: list[Job] = []
        self.held = 0
        self.configuration: Stream = {}
        self.controls: Stream = {}
        self.started = self.closed = False
        self.device.opened.append(self)

    @classmethod
    def global_camera_info(cls) -> list[Stream]:
        return list(cls.device.cameras)

    def create_video_configuration(self, **parts: Any) -> Stream:
        for name in ("main", "lores"):
            assert parts[name].keys() <= {"format", "size", "stride", "preserve_ar"}
        return parts

    def configure(self, configuration: Stream) -> None:
        if self.device.configuring_error:
            raise self.device.configuring_error
        main, lores = dict(configuration["main"]), dict(configuration["lores"])
        if any(side % 2 for stream in (main, lores) for side in stream["size"]):
            raise RuntimeError("width and height should be even")
        if lores["size"][0] > main["size"][0] or lores["size"][1] > main["size"][1]:
            raise RuntimeError("lores stream dimensions may not exceed main stream")
        self.device.adjust(main, lores)
        for stream in (main, lores):
            bytes_per_pixel = {"BGR888": 3, "RGB888": 3, "XBGR8888": 4, "XRGB8888": 4}.get(stream["format"], 1)
            stream["stride"] = bytes_per_pixel * stream["size"][0] + self.device.padding
        self.configuration = configuration | {"main": main, "lores": lores}

    def camera_configuration(self) -> Stream:
        return self.configuration

    @property
    def camera_controls(self) -> Stream:
        return {"FrameDurationLimits": self.device.limits} if self.device.limits else {}

    def set_controls(self, controls: Stream) -> None:
        if controls.keys() - self.camera_controls.keys():
            raise RuntimeError("Control is not advertised by libcamera")
        self.controls |= controls

    def start(self) -> None:
        self.started = True

    def capture_request(self, wait: bool) -> Job:
        assert wait is False and self.started
        self.jobs.append(Job(self))
        return self.jobs[-1]

    def cancel_all_and_flush(self) -> None:
        self.jobs = []

    def close(self) -> None:
        assert not self.jobs and not self.held, "frames were not given back"
        self.closed = True


class MappedArray:
    """A stream of a request without a copy: it turns to garbage when the request is given back."""

    def __init__(self, request: Request, stream: str, reshape: bool = True, write: bool = True) -> None:
        assert not write, "would be written back to the camera's memory"
        configuration = request.camera.configuration[stream]
        self.array = in_memory(request.camera.device.scene, configuration)
        released = request.release

        def release() -> None:
            self.array[:] = 99
            released()

        request.release = release  # type: ignore[method-assign]

    def __enter__(self) -> MappedArray:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def in_memory(scene: UInt8, configuration: Stream) -> UInt8:
    """The scene as the camera lays it down, in the shape in which picamera2 shows it."""
    (width, height), stride = configuration["size"], configuration["stride"]
    form = configuration["format"]
    rgb = cv2.resize(scene, (width, height), interpolation=cv2.INTER_AREA)
    red, green, blue = np.moveaxis(rgb.astype(float), 2, 0)
    unused = np.full_like(red, 7)
    orders = {
        "BGR888": (red, green, blue),
        "RGB888": (blue, green, red),
        "XBGR8888": (red, green, blue, unused),
        "XRGB8888": (blue, green, red, unused),
    }
    if form in orders:
        pixels = np.stack(orders[form], axis=2).astype(np.uint8)
        padded = np.full((height, stride), 7, np.uint8)
        padded[:, : pixels[0].size] = pixels.reshape(height, -1)
        return padded[:, : pixels[0].size].reshape(pixels.shape)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    halves = [plane.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)) for plane in (luma, red, blue)]
    cb, cr = (halves[2] - halves[0]) * 0.564 + 128, (halves[1] - halves[0]) * 0.713 + 128
    memory = np.full((height * 3 // 2, stride), 7, np.uint8)
    memory[:height, :width] = luma.round()
    if form == "NV12":
        memory[height:, :width] = np.stack([cb, cr], axis=2).round().reshape(height // 2, width)
        return memory[:, :width]
    memory[height:].reshape(2, height // 2, stride // 2)[:, :, : width // 2] = np.stack([cb, cr]).round()
    return memory


def install(monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
    """Let `import picamera2` and `import libcamera` find this."""
    kind = type("Picamera2", (Picamera2,), {"device": device})
    module, libcamera = types.ModuleType("picamera2"), types.ModuleType("libcamera")
    module.Picamera2, module.MappedArray = kind, MappedArray  # type: ignore[attr-defined]
    libcamera.ColorSpace = types.SimpleNamespace(Sycc=lambda: "sYCC")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    monkeypatch.setitem(sys.modules, "libcamera", libcamera)

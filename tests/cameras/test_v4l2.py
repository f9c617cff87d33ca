"""A V4L2 camera over a stand-in for OpenCV's capture: no such device can be made without the kernel's module for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from edge_vad.cameras import find_camera, is_live, open_camera, v4l2
from edge_vad.errors import SourceError
from edge_vad.types import UInt8

DEVICE = "v4l2:/dev/null"  # a character device that anybody may open
YUYV, MJPG = (cv2.VideoWriter_fourcc(*code) for code in ("YUYV", "MJPG"))
BLUE = np.full((48, 64, 3), (200, 20, 10), np.uint8)


class FakeCapture:
    """What OpenCV's V4L2 capture does: it takes the nearest that the device has, and says so only when asked.

    modes: format -> {(width, height): highest rate}. script: what the next grabs give: a picture, None for a damaged one;
    after the last one, grabs fail. clock_s: added to the driver's time stamps.
    """

    modes: ClassVar[dict[int, dict[tuple[int, int], float]]]
    script: ClassVar[list[UInt8 | None]]
    clock_s = 0.0
    opens = True
    last: ClassVar[FakeCapture]

    def __init__(self, name: str, backend: int) -> None:
        assert name == "/dev/null" and backend == cv2.CAP_V4L2
        self.wanted: dict[int, Any] = {}
        self.asked: list[tuple[int, float]] = []
        self.released = False
        self.picture: UInt8 | None = None
        self.stamp_ms = 0.0
        type(self).last = self

    def isOpened(self) -> bool:
        return self.opens

    def set(self, key: int, value: float) -> bool:
        self.asked.append((key, value))
        if key != cv2.CAP_PROP_FOURCC or value in self.modes:
            self.wanted[key] = value
        return True

    def get(self, key: int) -> float:
        code = self.wanted.get(cv2.CAP_PROP_FOURCC, next(iter(self.modes)))
        sizes = self.modes[code]
        width = self.wanted.get(cv2.CAP_PROP_FRAME_WIDTH, 640)
        size = min(sizes, key=lambda size: abs(size[0] - width))
        given = {
            cv2.CAP_PROP_FOURCC: code,
            cv2.CAP_PROP_FRAME_WIDTH: size[0],
            cv2.CAP_PROP_FRAME_HEIGHT: size[1],
            cv2.CAP_PROP_FPS: min(self.wanted.get(cv2.CAP_PROP_FPS, 30), sizes[size]),
            cv2.CAP_PROP_POS_MSEC: self.stamp_ms,
        }
        return float(given[key])

    def grab(self) -> bool:
        if not self.script:
            return False
        self.picture = self.script.pop(0)
        self.stamp_ms = 1000 * (time.monotonic() - 0.03 + self.clock_s)
        return True

    def retrieve(self) -> tuple[bool, UInt8 | None]:
        return self.picture is not None, self.picture

    def release(self) -> None:
        self.released = True


@pytest.fixture(autouse=True)
def capture(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeCapture]]:
    """A webcam: uncompressed it has 640x480 in full rate, and 1280x720 in ten frames per second."""

    class Webcam(FakeCapture):
        modes: ClassVar = {YUYV: {(640, 480): 30.0, (1280, 720): 10.0}, MJPG: {(640, 480): 30.0, (1280, 720): 30.0}}
        script: ClassVar = [BLUE] * 3

    monkeypatch.setattr(cv2, "VideoCapture", Webcam)
    yield Webcam


def chosen(capture: type[FakeCapture]) -> int:
    return capture.last.wanted[cv2.CAP_PROP_FOURCC]


def test_frames_are_rgb_counted_and_stamped_by_the_driver(capture: type[FakeCapture]) -> None:
    began = time.monotonic()
    with open_camera(DEVICE, 30, (640, 480)) as camera:
        first, second, third = islice(camera.frames(), 3)
    assert capture.last.released
    assert (first.image[0, 0] == (10, 20, 200)).all() and first.luma.shape == (48, 64)
    assert [first.index, second.index, third.index] == [0, 1, 2]
    assert began - 0.03 <= first.timestamp <= second.timestamp <= time.monotonic() - 0.03


@pytest.mark.parametrize("clock_s", [1e9, -1e5])
def test_a_driver_with_another_clock_is_stamped_on_arrival(capture: type[FakeCapture], clock_s: float) -> None:
    capture.clock_s = clock_s
    began = time.monotonic()
    with open_camera(DEVICE) as camera:
        assert began <= next(iter(camera.frames())).timestamp <= time.monotonic()


@pytest.mark.parametrize(
    ("fps", "size", "code"),
    [(30, (640, 480), YUYV), (30, (1280, 720), MJPG), (10, (1280, 720), YUYV), (None, (1280, 720), MJPG), (25, None, YUYV)],
)
def test_uncompressed_where_it_fits_through_usb_2(
    capture: type[FakeCapture], fps: float | None, size: tuple[int, int] | None, code: int
) -> None:
    with open_camera(DEVICE, fps, size) as camera:
        assert chosen(capture) == code and camera.fps == (fps or 30)
        assert capture.last.asked[0] == (cv2.CAP_PROP_BUFFERSIZE, v4l2.BUFFERS)


def test_the_other_format_where_the_first_lacks_the_size_or_the_rate(capture: type[FakeCapture]) -> None:
    capture.modes = {YUYV: {(640, 480): 5.0}, MJPG: {(640, 480): 30.0}}
    with open_camera(DEVICE, 30, (640, 480)) as camera:
        assert chosen(capture) == MJPG and camera.fps == 30
    capture.modes = {YUYV: {(1280, 720): 30.0}, MJPG: {(640, 480): 30.0}}
    with open_camera(DEVICE, 30, (1280, 720)):
        assert chosen(capture) == YUYV


def test_what_the_device_really_gives_is_read_back(capture: type[FakeCapture]) -> None:
    capture.modes = {YUYV: {(640, 480): 15.0}}
    with open_camera(DEVICE, 30, (1920, 1080)) as camera:
        assert camera.fps == 15 and chosen(capture) == YUYV


def test_a_failed_grab_is_the_end_and_says_what_to_check(capture: type[FakeCapture]) -> None:
    with open_camera(DEVICE) as camera:
        frames = camera.frames()
        assert len(list(islice(frames, 3))) == 3
        with pytest.raises(SourceError, match="/dev/null: no more frames; check the plug, the cable and the power"):
            next(frames)


def test_a_damaged_picture_is_left_out_and_counted(capture: type[FakeCapture]) -> None:
    capture.script = [BLUE, None, BLUE]
    with open_camera(DEVICE) as camera:
        assert [frame.index for frame in islice(camera.frames(), 2)] == [0, 2]


def test_a_picture_of_another_size_is_an_error(capture: type[FakeCapture]) -> None:
    capture.script = [BLUE, BLUE[:24]]
    with open_camera(DEVICE) as camera, pytest.raises(SourceError, match="/dev/null: the picture size changed to 64x24"):
        list(camera.frames())


def test_devices_that_are_not_there_or_no_cameras(capture: type[FakeCapture], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="/dev/video97: no such camera; is it plugged in"):
        open_camera("97")
    with pytest.raises(SourceError, match=f"{__file__}: no such camera"):
        open_camera(f"v4l2:{__file__}")
    capture.opens = False
    with pytest.raises(SourceError, match="/dev/null: not a camera, or in use"):
        open_camera(DEVICE)
    monkeypatch.setattr(v4l2.os, "access", lambda *_: False)
    with pytest.raises(SourceError, match="/dev/null: no permission; add the user to the group video"):
        open_camera(DEVICE)


@pytest.mark.parametrize(
    ("source", "location"), [("0", "0"), ("/dev/video2", "/dev/video2"), ("v4l2:/dev/v4l/x", "/dev/v4l/x")]
)
def test_sources_that_mean_a_v4l2_device(source: str, location: str) -> None:
    assert find_camera(source) == (v4l2.V4l2Device, location) and is_live(source)

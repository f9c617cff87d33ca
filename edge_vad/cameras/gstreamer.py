"""Any GStreamer pipeline as a camera; above all the camera connector and the hardware decoder of an NVIDIA Jetson."""

from __future__ import annotations

import importlib
import re
import textwrap
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from edge_vad.cameras.base import Camera
from edge_vad.cameras.rtsp import masked
from edge_vad.errors import MissingPackageError, SourceError
from edge_vad.plugins import require
from edge_vad.types import Frame, UInt8

DEFAULT_FPS = 30
FIRST_FRAME_S, TIMEOUT_S = 10.0, 5.0
POLL_S = 0.25
LATENCY_MS = 200  # of rtspsrc: how long it waits for packets that come in the wrong order
# RGB, not the BGR of OpenCV's own pipelines: it is what a Frame holds, and costs videoconvert the same.
RGB = "videoconvert ! video/x-raw,format=RGB"
SINK = "appsink drop=true max-buffers=1 sync=false"
FROM_NVMM = "nvvidconv ! video/x-raw,format=BGRx"  # out of the graphics memory; it has no 24-bit format


def pipeline(location: str, fps: float | None = None, size: tuple[int, int] | None = None) -> str:
    """What is handed to GStreamer for a location."""
    scheme, colon, rest = location.partition(":")
    if colon and scheme == "csi":
        return csi_pipeline(rest.lstrip("/"), fps, size)
    if colon and scheme == "gst":
        location = rest
    if re.match(r"\s*rtsps?://\S+\s*$", location):
        return rtsp_pipeline(location.strip())
    if re.search(r"\bappsink\b", location):
        return location
    return f"{location} ! {RGB} ! {SINK}"


def csi_pipeline(sensor: str, fps: float | None = None, size: tuple[int, int] | None = None) -> str:
    """A camera at the connector of a Jetson: exposure, colours and scaling are done by its image processor."""
    if not sensor.isdigit():
        raise SourceError(f"csi://{sensor}: expected the number of the camera: csi://0")
    limits = f",width={size[0]},height={size[1]}" if size else ""
    rate = f",framerate={round(fps or DEFAULT_FPS)}/1"
    source = f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM){limits}{rate}"
    return f"{source} ! {FROM_NVMM} ! {RGB} ! {SINK}"


def rtsp_pipeline(address: str, codec: str = "h264") -> str:
    """A network camera through the hardware decoder of a Jetson. codec: h264 or h265."""
    source = f'rtspsrc location="{address}" protocols=tcp latency={LATENCY_MS}'
    return f"{source} ! rtp{codec}depay ! {codec}parse ! nvv4l2decoder ! {FROM_NVMM} ! {RGB} ! {SINK}"


class GStreamerPipeline(Camera):
    """``csi://0`` (Jetson), ``gst:rtsp://...`` (decoded by the Jetson's hardware), or ``gst:PIPELINE``.

    A pipeline of your own needs no sink: ``videoconvert ! video/x-raw,format=RGB ! appsink`` is put behind it. One with
    an appsink must give it RGB or BGR. Size and frame rate are stated in it, and read back from what it delivers.

    The Python bindings of GStreamer come with the system, not from PyPI. Frames that the sink dropped are counted by
    their time stamps where the pipeline states a fixed frame rate.
    """

    live = True

    def __init__(self, location: str, fps: float | None = None, size: tuple[int, int] | None = None) -> None:
        self._name = textwrap.shorten(masked(location), 100, placeholder=" ...")
        self._cv2 = require("cv2", "opencv-python-headless", "reading GStreamer pipelines")
        self._gst = _gstreamer()
        text = pipeline(location, fps, size)
        try:
            self._pipeline = self._gst.parse_launch(text)
        except Exception as error:  # GLib.Error, a class that only exists with the bindings
            raise self._error(getattr(error, "message", str(error))) from error
        self._sink = self._find_sink()
        try:
            if self._pipeline.set_state(self._gst.State.PLAYING) == self._gst.StateChangeReturn.FAILURE:
                raise self._ending() or self._error("does not start")
            self._first = self._pull(FIRST_FRAME_S)
            self._picture(self._first)  # of a format that can be used
        except SourceError:
            self.close()
            raise
        self._stated_fps = _rate_of(self._first)
        self.fps = self._stated_fps or fps or float(DEFAULT_FPS)

    def frames(self) -> Iterator[Frame]:
        sample = self._first
        index, last, shape = 0, -1.0, (0, 0, 0)
        while True:
            image = self._picture(sample)
            if index and image.shape != shape:
                raise self._error(f"the picture size changed to {image.shape[1]}x{image.shape[0]}")
            timestamp = max(last, self._exposed_at(sample))
            if self._stated_fps and index:
                index += max(0, round((timestamp - last) * self._stated_fps) - 1)
            luma = self._cv2.cvtColor(image, self._cv2.COLOR_RGB2GRAY)
            yield Frame(image, luma, timestamp, index)
            last, shape = timestamp, image.shape
            index += 1
            sample = self._pull(TIMEOUT_S)

    def close(self) -> None:
        self._pipeline.set_state(self._gst.State.NULL)

    def _find_sink(self) -> Any:
        sinks = []
        if isinstance(self._pipeline, self._gst.Bin):
            elements = self._pipeline.iterate_all_by_element_factory_name("appsink")
            while (found := elements.next())[0] == self._gst.IteratorResult.OK:
                sinks.append(found[1])
        if len(sinks) != 1:
            raise self._error(f"expected one appsink in the pipeline, found {len(sinks)}")
        return sinks[0]

    def _pull(self, timeout_s: float) -> Any:
        """The next sample. It is waited for in short steps: an error elsewhere in the pipeline does not wake the sink."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            sample = self._sink.emit("try-pull-sample", int(POLL_S * self._gst.SECOND))
            if sample is not None:
                return sample
            ending = self._ending()
            if ending:
                raise ending
        raise self._error(f"no frame for {timeout_s:.0f} s")

    def _ending(self) -> SourceError | None:
        """Why there will be no more frames, if the pipeline said so."""
        kinds = self._gst.MessageType
        message = self._pipeline.get_bus().pop_filtered(kinds.ERROR | kinds.EOS)
        if message is None:
            return None
        if message.type == kinds.EOS:
            return self._error("the stream ended")
        error, details = message.parse_error()
        cause = (details or "").strip().splitlines()[-1:]  # the lines before name a source file of GStreamer
        return self._error(f"{message.src.get_name()}: {' '.join([error.message, *cause])}")

    def _error(self, reason: str) -> SourceError:
        return SourceError(f"{self._name}: {masked(reason)}")

    def _picture(self, sample: Any) -> UInt8:
        """The picture of a sample, (H, W, 3) RGB in memory of its own."""
        layout = sample.get_caps().get_structure(0)
        width, height, code = layout.get_value("width"), layout.get_value("height"), layout.get_string("format")
        if code not in ("RGB", "BGR"):
            raise self._error(f"the appsink gets {code or layout.get_name()}; put {RGB} before it")
        buffer = sample.get_buffer()
        data = np.frombuffer(buffer.extract_dup(0, buffer.get_size()), np.uint8)
        stride = len(data) // height  # rows are padded, to four bytes as a rule
        if stride < 3 * width:
            raise self._error(f"a frame of {len(data)} bytes for {width}x{height} pixels")
        rows = data[: stride * height].reshape(height, stride)[:, : 3 * width]
        image: UInt8 = np.ascontiguousarray(rows).reshape(height, width, 3)
        return image if code == "RGB" else self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB)

    def _exposed_at(self, sample: Any) -> float:
        """The time stamp of a sample in seconds of ``time.monotonic()``; its arrival where there is none."""
        now = time.monotonic()
        stamp, clock = sample.get_buffer().pts, self._pipeline.get_clock()
        if stamp == self._gst.CLOCK_TIME_NONE or clock is None:
            return now
        running = sample.get_segment().to_running_time(self._gst.Format.TIME, stamp)
        age = (clock.get_time() - self._pipeline.get_base_time() - running) / self._gst.SECOND
        return now - max(0.0, age)


def _rate_of(sample: Any) -> float | None:
    """The fixed frame rate that a sample states, if any."""
    found, above, below = sample.get_caps().get_structure(0).get_fraction("framerate")
    return above / below if found and above > 0 < below else None


def _gstreamer() -> Any:
    """The module Gst of the system's Python bindings, started."""
    try:
        gi = importlib.import_module("gi")
        gi.require_version("Gst", "1.0")
        gst = importlib.import_module("gi.repository.Gst")
    except (ImportError, ValueError) as error:
        raise MissingPackageError(
            "GStreamer needs its Python bindings: apt install python3-gi gir1.2-gstreamer-1.0, and a virtual environment "
            f"made with --system-site-packages ({error})"
        ) from error
    gst.init(None)
    return gst

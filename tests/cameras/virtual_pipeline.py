"""What the real picamera2 (0.3.38) needs to run on the virtual camera of libcamera 0.4.0: `install`.

All that is replaced here is missing on the machine or unfinished in libcamera; nothing of it touches edge_vad:

- pykms, which draws previews, is a stand-in.
- There is no /dev/dma_heap: frame buffers lie in memfds.
- The virtual camera refuses the raw role, which picamera2 asks for when it opens a camera.
- It leaves the status of a frame uninitialised, and picamera2 drops what is not a success.
- It fills a buffer the moment it gets it, 1450 times a second: a metronome hands the buffers on, one per beat. A beat
  without a buffer is a frame that a sensor would have dropped.
"""

from __future__ import annotations

import collections
import mmap
import os
import sys
import threading
import time
import types
from typing import Any


class AnyName:
    """Has every attribute."""

    def __getattr__(self, name: str) -> str:
        return name


kms = types.ModuleType("pykms")
kms.PixelFormat = kms.PixelFormats = AnyName()  # type: ignore[attr-defined]
sys.modules["pykms"] = sys.modules["kms"] = kms

import libcamera  # noqa: E402
import picamera2.picamera2  # noqa: E402
from picamera2.allocators.allocator import Allocator, Sync  # noqa: E402


class MappedBuffer(Sync):
    """A buffer as picamera2 opens it."""

    def __init__(self, allocator: MemfdAllocator, buffer: Any, write: bool) -> None:
        self._memory = allocator.mapped_buffers[buffer]

    def __enter__(self) -> mmap.mmap:
        return self._memory

    def __exit__(self, *_: object) -> None:
        pass


class MemfdAllocator(Allocator):  # type: ignore[misc]
    """One memfd per buffer; the two planes of NV12 behind each other in it, or libcamera aborts."""

    def __init__(self) -> None:
        super().__init__()
        self.sync = MappedBuffer
        self.mapped_buffers: dict[Any, mmap.mmap] = {}
        self._of_stream: dict[Any, list[Any]] = {}
        self._handles: list[int] = []

    def allocate(self, configuration: Any, _use_case: str) -> None:
        self.close()
        for stream in configuration:
            assert str(stream.pixel_format) == "NV12"
            luma = stream.stride * stream.size.height
            made = [self._buffer([luma, luma // 2]) for _ in range(stream.buffer_count)]
            self._of_stream[stream.stream] = made

    def buffers(self, stream: Any) -> list[Any]:
        return self._of_stream[stream]

    def close(self) -> None:
        for handle in self._handles:
            os.close(handle)
        self.mapped_buffers, self._of_stream, self._handles = {}, {}, []

    def _buffer(self, lengths: list[int]) -> Any:
        handle = os.memfd_create("frame")
        os.ftruncate(handle, sum(lengths))
        self._handles.append(handle)
        planes = []
        for number, length in enumerate(lengths):
            plane = libcamera.FrameBuffer.Plane()
            plane.fd, plane.offset, plane.length = handle, sum(lengths[:number]), length
            planes.append(plane)
        buffer = libcamera.FrameBuffer(planes)
        self.mapped_buffers[buffer] = mmap.mmap(handle, sum(lengths))
        return buffer


class Metronome(threading.Thread):
    """Hands one waiting request to the camera per beat."""

    def __init__(self, fps: float) -> None:
        super().__init__(daemon=True)
        self._period_s = 1 / fps
        self._waiting: collections.deque[tuple[Any, Any]] = collections.deque()
        self._hand_on, self._stop_camera = libcamera.Camera.queue_request, libcamera.Camera.stop
        libcamera.Camera.queue_request = lambda camera, request: self._waiting.append((camera, request))
        libcamera.Camera.stop = lambda camera: self._stop(camera)  # a function, to become a method

    def run(self) -> None:
        beat = time.monotonic()
        while True:
            beat += self._period_s
            time.sleep(max(0.0, beat - time.monotonic()))
            try:
                self._hand_on(*self._waiting.popleft())
            except IndexError:
                pass  # all buffers are held
            except RuntimeError:
                pass  # the camera was stopped meanwhile

    def _stop(self, camera: Any) -> None:
        self._waiting.clear()
        self._stop_camera(camera)


def raw_modes(camera: Any) -> list[dict[str, Any]]:
    """What picamera2 wants to know of the sensor, from another role."""
    formats = camera.camera.generate_configuration([libcamera.StreamRole.VideoRecording]).at(0).formats
    sizes = [(code, size) for code in formats.pixel_formats for size in formats.sizes(code)]
    return [{"format": str(code), "size": (size.width, size.height)} for code, size in sizes]


def install(fps: float) -> None:
    """Once in a process, before a camera is opened: from then on picamera2 shows the virtual camera, fps beats a second."""
    libcamera.FrameMetadata.status = property(lambda _: libcamera.FrameMetadata.Status.Success)
    picamera2.picamera2.DmaAllocator = MemfdAllocator
    picamera2.Picamera2._get_raw_modes = raw_modes
    Metronome(fps).start()

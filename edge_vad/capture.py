"""A live camera in a process of its own: it may hang, crash or leak, and is ended and started again.

Frames lie in shared memory, three slots of it: the camera writes one, the newest waits in another, the detector reads
the third. Messages go over a socket pair that keeps their boundaries; whoever ends, the other one sees it at once.

The child is `main` of this module, with a socket over which it is told the source.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_vad.cameras import open_camera
from edge_vad.child import command
from edge_vad.errors import EdgeVadError, SourceError
from edge_vad.types import Frame, UInt8

N_SLOTS = 3
MAX_SIDE = 16384
_HEADER = struct.Struct("<i")  # the slot that is being read
_HEADER_BYTES = 64
_MESSAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes (width, height) of image and luma."""

    image: tuple[int, int]
    luma: tuple[int, int]

    @property
    def slot_bytes(self) -> int:
        """Bytes of one slot."""
        return 3 * self.image[0] * self.image[1] + self.luma[0] * self.luma[1]

    def views(self, memory: mmap.mmap, slot: int) -> tuple[UInt8, UInt8]:
        """Image (H, W, 3) and luma (h, w) of a slot, without a copy."""
        at = _HEADER_BYTES + slot * self.slot_bytes
        (width, height), (luma_width, luma_height) = self.image, self.luma
        image: UInt8 = np.frombuffer(memory, np.uint8, 3 * width * height, at).reshape(height, width, 3)
        luma: UInt8 = np.frombuffer(memory, np.uint8, luma_width * luma_height, at + image.size)
        return image, luma.reshape(luma_height, luma_width)


class Capture:
    """The parent's side: starts the child, takes its newest frame, ends it."""

    def __init__(self, source: str, fps: float | None = None, size: tuple[int, int] | None = None) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # Over the socket, not on the command line: an address may hold a password.
        ours.send(json.dumps({"source": source, "fps": fps, "size": size}).encode())
        with theirs:
            arguments = command("edge_vad.capture", str(theirs.fileno()))
            self._process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        ours.setblocking(False)
        self._socket = ours
        self._memory: mmap.mmap | None = None
        self._geometry: Geometry | None = None
        self._ended = ""
        self.n_frames = 0

    def fileno(self) -> int:
        """For select: readable when there is something to take."""
        return self._socket.fileno()

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    def newest(self) -> Frame | None:
        """The newest frame since the last call, in memory of its own; None when there is none.

        SourceError when the camera has ended, with its reason. `Frame.index` counts what the camera captured.
        """
        if self._ended:
            raise SourceError(self._ended)
        newest: dict[str, Any] | None = None
        try:
            for message in self._messages():
                if "frame" in message:
                    newest = message
                elif "image" in message:
                    newest = None  # frames of the size before cannot be read any more
                else:
                    self._ended = message["ended"]
        except SourceError as error:
            if newest is None:
                raise SourceError(self._ended) if self._ended else error from error
        return self._read(newest) if newest else None

    def close(self) -> None:
        """End the child; it has no say in it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._memory = None

    def _messages(self) -> Iterator[dict[str, Any]]:
        while True:
            try:
                data, handles, _, _ = socket.recv_fds(self._socket, _MESSAGE_BYTES, 1)
            except BlockingIOError:
                return
            except OSError as error:
                raise SourceError(f"the capture process is gone: {error.strerror}") from error
            if not data:
                raise SourceError(f"the capture process ended ({self._how_it_ended()})")
            message = json.loads(data)
            if handles:
                self._map(message, handles[0])
            yield message

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return "but is still there"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def _map(self, message: dict[str, Any], handle: int) -> None:
        self._geometry = Geometry(tuple(message["image"]), tuple(message["luma"]))
        try:
            self._memory = mmap.mmap(handle, _HEADER_BYTES + N_SLOTS * self._geometry.slot_bytes)
        finally:
            os.close(handle)

    def _read(self, message: dict[str, Any]) -> Frame | None:
        assert self._memory is not None and self._geometry is not None
        slot, timestamp, index = message["frame"], message["timestamp"], message["index"]
        _HEADER.pack_into(self._memory, 0, slot)  # from here on the child leaves it alone
        image, luma = self._geometry.views(self._memory, slot)
        stamp = np.frombuffer(self._memory, np.int64, N_SLOTS, 8)
        intact = stamp[slot] == index
        frame = Frame(image.copy(), luma.copy(), timestamp, index)
        if not intact or stamp[slot] != index:  # it was faster: a newer message is on its way
            return None
        _HEADER.pack_into(self._memory, 0, -1)
        self.n_frames += 1
        return frame


class _Publisher:
    """The child's side."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._geometry: Geometry | None = None
        self._memory: mmap.mmap | None = None
        self._last = -1

    def publish(self, frame: Frame) -> None:
        """Copy a frame into a free slot and tell the parent; a parent that is behind loses the older ones."""
        self._prepare(frame)
        assert self._memory is not None and self._geometry is not None
        (reading,) = _HEADER.unpack_from(self._memory, 0)
        slot = next(i for i in range(N_SLOTS) if i not in (reading, self._last))
        stamp = np.frombuffer(self._memory, np.int64, N_SLOTS, 8)
        stamp[slot] = -1
        image, luma = self._geometry.views(self._memory, slot)
        image[:], luma[:] = frame.image, frame.luma
        stamp[slot] = frame.index
        self._last = slot
        self._tell({"frame": slot, "timestamp": frame.timestamp, "index": frame.index})

    def end(self, reason: str) -> None:
        """Say why there will be no more frames."""
        self._channel.setblocking(True)
        self._tell({"ended": reason})

    def _prepare(self, frame: Frame) -> None:
        """Shared memory for frames of this size; the parent gets it before the first of them."""
        _check(frame)
        geometry = Geometry(frame.image.shape[1::-1], frame.luma.shape[::-1])
        if geometry == self._geometry:
            return
        size = _HEADER_BYTES + N_SLOTS * geometry.slot_bytes
        handle = os.memfd_create("frames", os.MFD_CLOEXEC)
        try:
            os.ftruncate(handle, size)
            self._memory = mmap.mmap(handle, size)
            _HEADER.pack_into(self._memory, 0, -1)
            message = json.dumps({"image": geometry.image, "luma": geometry.luma}).encode()
            self._channel.setblocking(True)
            socket.send_fds(self._channel, [message], [handle])
            self._channel.setblocking(False)
        finally:
            os.close(handle)
        self._geometry, self._last = geometry, -1

    def _tell(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BlockingIOError):  # hundreds of messages wait there already
            self._channel.send(json.dumps(message).encode())


def _check(frame: Frame) -> None:
    """Whatever a camera's code delivers, the detector gets pictures."""
    planes = {
        "image": (frame.image, frame.image.ndim == 3 and frame.image.shape[2] == 3),
        "luma": (frame.luma, frame.luma.ndim == 2),
    }
    for what, (plane, fits) in planes.items():
        if plane.dtype != np.uint8 or not fits or not 0 < min(plane.shape) <= max(plane.shape) <= MAX_SIDE:
            raise SourceError(f"a frame of the shape {plane.shape}, {plane.dtype} ({what}): the camera is broken")


def main(arguments: list[str]) -> int:
    """The child: publish frames until the camera or the parent ends."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    channel = socket.socket(fileno=int(arguments[0]))
    what = json.loads(channel.recv(2**16))
    publisher = _Publisher(channel)
    try:
        _check_parent(channel)
        with open_camera(what["source"], what["fps"], tuple(what["size"]) if what["size"] else None) as camera:
            for frame in camera.frames():
                publisher.publish(frame)
        publisher.end("the stream ended")
    except (BrokenPipeError, ConnectionResetError):
        return 0  # the parent has gone
    except EdgeVadError as error:
        publisher.end(str(error))
    return 0


def _die_with_parent() -> None:
    """Also when the parent is killed while the camera blocks: nothing else would end this process then."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def _check_parent(channel: socket.socket) -> None:
    """It may have been killed before this process asked to die with it. Raises BrokenPipeError."""
    with contextlib.suppress(BlockingIOError):
        channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        raise BrokenPipeError

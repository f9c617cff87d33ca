"""Pictures that are JPEG already as a video that plays everywhere: Motion JPEG in an AVI file, without encoding again.

OpenCV's own writer encodes each picture once more, and does not tell when the disk is full.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

_HEADER_BYTES = 12 + 8 + 4 + (8 + 56) + (8 + 4 + (8 + 56) + (8 + 40)) + 12
_HAS_INDEX, _KEY_FRAME = 0x10, 0x10


class AviWriter:
    """A new file; OSError where it cannot be written. It is a video once `finish` has returned."""

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        """size: width, height of all pictures."""
        self.path, self._size = path, size
        self._sizes: list[int] = []
        self._n_bytes = 0
        self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            self._write(bytes(_HEADER_BYTES))
        except BaseException:
            self.close()
            path.unlink(missing_ok=True)
            raise

    @property
    def n_frames(self) -> int:
        """Pictures so far."""
        return len(self._sizes)

    @property
    def n_bytes(self) -> int:
        """Size of the file so far."""
        return self._n_bytes

    def add(self, jpeg: bytes) -> None:
        """One more picture."""
        self._write(b"00dc" + struct.pack("<I", len(jpeg)) + jpeg + bytes(len(jpeg) % 2))
        self._sizes.append(len(jpeg))

    def sync(self) -> None:
        """Bring what was added to the medium, so that the end of a long clip is no long wait."""
        os.fdatasync(self._handle)

    def finish(self, fps: float) -> None:
        """Write the index and the header, sync and close."""
        end = self._n_bytes
        self._write(self._index())
        header = self._header(fps, end)
        if os.pwrite(self._handle, header, 0) != len(header):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._handle)
        self.close()

    def close(self) -> None:
        """Release the file, finished or not."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[os.write(self._handle, left) :]
        self._n_bytes += len(data)

    def _index(self) -> bytes:
        entries, at = [], 4
        for size in self._sizes:
            entries.append(b"00dc" + struct.pack("<III", _KEY_FRAME, at, size))
            at += 8 + size + size % 2
        return _chunk(b"idx1", b"".join(entries))

    def _header(self, fps: float, end: int) -> bytes:
        (width, height), n, largest = self._size, len(self._sizes), max(self._sizes, default=0)
        rate = max(1, round(1000 * fps))
        avih = (round(1e6 / fps), round(fps * largest), 0, _HAS_INDEX, n, 0, 1, largest, width, height, 0, 0, 0, 0)
        strh = struct.pack(
            "<4s4sIHHIIIIIIII4H", b"vids", b"MJPG", 0, 0, 0, 0, 1000, rate, 0, n, largest, 0xFFFFFFFF, 0, 0, 0, width, height
        )
        strf = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", width * height * 3, 0, 0, 0, 0)
        stream = _list(b"strl", _chunk(b"strh", strh) + _chunk(b"strf", strf))
        movi = b"LIST" + struct.pack("<I", end - _HEADER_BYTES + 4) + b"movi"
        body = b"AVI " + _list(b"hdrl", _chunk(b"avih", struct.pack("<14I", *avih)) + stream) + movi
        return b"RIFF" + struct.pack("<I", self._n_bytes - 8) + body


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data


def _list(name: bytes, data: bytes) -> bytes:
    return _chunk(b"LIST", name + data)

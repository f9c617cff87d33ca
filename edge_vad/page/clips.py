"""A clip as a browser can show it: the pictures of a motion-JPEG AVI one after the other, without decoding any."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

_CHUNK = struct.Struct("<4sI")
_CONTAINERS = (b"RIFF", b"LIST")
_PICTURES = (b"dc", b"db")
MAX_PICTURE_BYTES = 4 * 2**20
FASTEST_S, SLOWEST_S, USUAL_S = 1 / 60, 5.0, 0.1


def pictures(file: BinaryIO) -> Iterator[tuple[float, bytes]]:
    """(seconds that it is shown, JPEG) of each picture. A clip that was cut short ends where its bytes end."""
    period_s = USUAL_S
    while len(head := file.read(_CHUNK.size)) == _CHUNK.size:
        kind, size = _CHUNK.unpack(head)
        if kind in _CONTAINERS:
            file.seek(4, 1)  # its name: what is in it comes one after the other
        elif kind[2:] in _PICTURES and 2 <= size <= MAX_PICTURE_BYTES:
            jpeg = file.read(size)
            if len(jpeg) < size or not jpeg.startswith(b"\xff\xd8"):
                return
            yield period_s, jpeg
            file.seek(size % 2, 1)
        elif kind == b"avih":
            (microseconds,) = struct.unpack("<I", file.read(4).ljust(4, b"\0"))
            period_s = min(max(microseconds / 1e6, FASTEST_S), SLOWEST_S) if microseconds else USUAL_S
            file.seek(size + size % 2 - 4, 1)
        else:
            file.seek(size + size % 2, 1)

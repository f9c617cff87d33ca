"""A live camera that does what a file says: frames, and then every way in which a camera can fail.

The file holds {"fps": ..., "street": pictures.npy, "connections": [[step, ...], ...]}: each time that the camera is opened
is the next connection, the last one again and again. A step is [what, argument].
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from live_parts.pictures import SIZE, frame, picture

from edge_vad.cameras.base import Camera
from edge_vad.errors import SourceError
from edge_vad.types import Frame


class Scripted(Camera):
    """``live_parts.scripted:PLAN``."""

    live = True

    def __init__(self, location: str, fps: float | None = None, size: tuple[int, int] | None = None) -> None:
        plan = json.loads(Path(location).read_text(encoding="utf-8"))
        with Path(location + ".opened").open("a", encoding="utf-8") as opened:
            number = opened.tell()
            opened.write("x")
        self._steps = plan["connections"][min(number, len(plan["connections"]) - 1)]
        self.fps = plan["fps"]
        self._scene = np.load(plan["street"]) if "street" in plan else None
        self._index = 0
        if self._steps and self._steps[0][0] == "refuse":
            raise SourceError("there is no camera at the moment")

    def frames(self) -> Iterator[Frame]:
        for what, argument in self._steps:
            yield from self._step(what, argument)

    def _step(self, what: str, argument: Any) -> Iterator[Frame]:
        if what == "raise":
            raise SourceError(argument)
        if what == "bug":
            raise RuntimeError(argument)
        if what == "exit":
            os._exit(argument)
        if what == "signal":
            os.kill(os.getpid(), argument)
        if what == "hang":
            time.sleep(argument)
        if what in ("dtype", "shape", "luma"):
            yield self._broken(what)
        if what == "size":
            count, size = argument
            yield from self._show("street", count, tuple(size))
        if what in ("street", "strange", "black", "covered", "frozen", "indexed"):
            yield from self._show(what, argument, SIZE)

    def _show(self, kind: str, count: int, size: tuple[int, int]) -> Iterator[Frame]:
        """count: of frames, for ever when it is negative."""
        while count:
            count -= 1
            if self.fps:
                time.sleep(1 / self.fps)
            yield frame(picture(kind, self._index, size, self._scene), time.monotonic(), self._index)
            self._index += 1

    def _broken(self, what: str) -> Frame:
        good = frame(picture("indexed", self._index), time.monotonic(), self._index)
        if what == "dtype":
            return Frame(good.image.astype(np.float32), good.luma, good.timestamp, good.index)
        if what == "shape":
            return Frame(good.image[..., 0], good.luma, good.timestamp, good.index)
        return Frame(good.image, good.luma.astype(np.float32), good.timestamp, good.index)

"""A camera for `soak.py`: a few seconds of the generated street again and again, as fast as it is taken.

benchmarks.loop_camera:frames=3600000,fps=100,report=100000
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from edge_vad.cameras.base import Camera
from edge_vad.cameras.synthetic import SyntheticStreet
from edge_vad.telemetry import memory_mb
from edge_vad.types import Frame

SECONDS, PICTURE_FPS = 60, 5


class Loop(Camera):
    """Frames of a minute of street, anomalies and all; prints its progress and the memory of the process."""

    def __init__(self, location: str, fps: float | None = None, size: tuple[int, int] | None = None) -> None:
        options = {key: int(value) for key, value in (pair.split("=") for pair in location.split(","))}
        self.n_frames, self.fps, self._report = options["frames"], float(options["fps"]), options["report"]
        street = SyntheticStreet(f"seed=3,seconds={SECONDS},fps={PICTURE_FPS},size=180x120")
        self._frames = list(street.frames())
        self.memory: list[float] = []

    def frames(self) -> Iterator[Frame]:
        per_picture = max(1, round(self.fps / PICTURE_FPS))
        start = time.process_time()
        for index in range(self.n_frames or 0):
            if index % self._report == 0:
                self.memory.append(memory_mb() or 0.0)
                print(f"{index:>9} frames  {self.memory[-1]:7.1f} MB  {time.process_time() - start:7.1f} CPU s", flush=True)
            picture = self._frames[index // per_picture % len(self._frames)]
            yield replace(picture, timestamp=index / self.fps, index=index)
        self.memory.append(memory_mb() or 0.0)

"""Live cameras on a stage: scripted ones in real capture processes, or staged ones in this process with their own clock."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from live_parts.pictures import SIZE, frame, picture

from edge_vad.device import CameraSettings, Device, MediaSettings
from edge_vad.errors import SourceError
from edge_vad.eventlog import read
from edge_vad.profile import load_profile
from edge_vad.types import Frame
from edge_vad.unit import Unit

PERIOD_S = 0.1
NO_PICTURES = MediaSettings(snapshots=False, clips=False)
HERE = str(Path(__file__).parent)
FOREVER = [["street", -1]]


def plan(path: Path, *connections: Sequence[Any], fps: float = 20, street: Path | None = None) -> str:
    """Write what a scripted camera does; returns its source."""
    pictures = {"street": str(street)} if street else {}
    path.write_text(json.dumps({"fps": fps, "connections": connections, **pictures}), encoding="utf-8")
    return f"live_parts.scripted:{path}"


def importable() -> dict[str, str]:
    """The environment of a process that knows the scripted camera."""
    return {**os.environ, "PYTHONPATH": HERE}


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> None:
    """Fail with ``what`` when a condition does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


class Stage:
    """Cameras in this process: each poll gives the next frame, 0.1 s later by the frames' own clock."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Any]] = {}
        self._count = 0
        self.always: dict[str, str] = {}
        self.opened: list[str] = []
        self.event = os.eventfd(1)

    def show(self, source: str, kind: str, n: int = 1, *, step: int = 1, size: tuple[int, int] = SIZE) -> None:
        """Put n pictures of a kind into the queue of a source; step: frames that the device counts for each."""
        self._queues.setdefault(source, deque()).extend([(kind, step, size)] * n)

    def fail(self, source: str, reason: str, times: int = 1) -> None:
        """The source ends with that reason, so many times."""
        self._queues.setdefault(source, deque()).extend([SourceError(reason)] * times)

    def left(self, source: str) -> int:
        """Entries of the queue that were not shown yet; the street follows after them."""
        return len(self._queues.get(source, ()))

    def next(self, source: str, index: int) -> tuple[Frame, int]:
        """The next frame and the next index."""
        queue = self._queues.get(source)
        entry = queue.popleft() if queue else (self.always.get(source, "street"), 1, SIZE)
        if isinstance(entry, Exception):
            raise entry
        kind, step, size = entry
        self._count += 1
        index += step
        return frame(picture(kind, self._count, size), 1000 + PERIOD_S * self._count, index), index

    def capture(self, source: str, fps: float | None, size: tuple[int, int] | None) -> StagedCapture:
        """In the place of `edge_vad.capture.Capture`."""
        self.opened.append(source)
        return StagedCapture(self, source)


class StagedCapture:
    """A connection to the stage."""

    pid = 0

    def __init__(self, stage: Stage, source: str) -> None:
        self._stage, self._source, self._index = stage, source, -1

    def fileno(self) -> int:
        return self._stage.event

    def newest(self) -> Frame | None:
        found, self._index = self._stage.next(self._source, self._index)
        return found

    def close(self) -> None:
        pass


def source(name: str) -> str:
    """Source of a staged camera: of a live kind, never opened."""
    return f"live_parts.scripted:{name}"


class Watched:
    """A unit whose loop the test turns itself, and its records."""

    def __init__(self, unit: Unit, data: Path) -> None:
        self.unit, self._data = unit, data

    def until(self, condition: Callable[[], Any], what: str = "in time", seconds: float = 20.0) -> None:
        """Turn the loop until a condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (
                f"{what}; records: {[(r['type'], r['kind'], r['camera']) for r in self.records()]}"
            )
            if not self.unit._round():
                self.unit._wait()
            self.unit._keep_house()

    def until_scored(self, n: int = 5, *names: str) -> None:
        """Turn the loop until each camera, or those that are named, has scored n more frames."""
        wanted = {c.name: c.n_scored + n for c in self.unit.channels if not names or c.name in names}
        self.until(
            lambda: all(self.scored(name) >= n_scored for name, n_scored in wanted.items()), "frames are scored again"
        )

    def scored(self, name: str) -> int:
        """Frames that a camera has scored since it was opened."""
        return next(c.n_scored for c in self.unit.channels if c.name == name)

    def records(self, camera: str | None = None, *types: str) -> list[dict[str, Any]]:
        """The event log: of one camera, of some types."""
        found = [record.plain() for _, record in read(self._data / "events")]
        return [r for r in found if camera in (None, r["camera"]) and (not types or r["type"] in types)]

    def kinds(self, camera: str | None = None, *types: str) -> list[str]:
        """type.kind of each record."""
        return [f"{r['type']}.{r['kind']}" for r in self.records(camera, *types)]

    def status(self, camera: str) -> dict[str, Any]:
        """What the unit says of a camera."""
        return dict(self.unit.status()["cameras"][camera])


@contextmanager
def watched(
    folder: Path,
    cameras: dict[str, CameraSettings],
    *overrides: str,
    sinks: tuple[str, ...] = ("jsonl:/dev/null",),
    media: MediaSettings = NO_PICTURES,
) -> Iterator[Watched]:
    """A unit with an event log below a folder, stopped at the end."""
    device = Device(
        cameras,
        data=str(folder / "data"),
        runtime=str(folder / "run"),
        sinks=sinks,
        media=media,
    )
    unit = Unit(device, load_profile("desktop_cpu", overrides))
    try:
        yield Watched(unit, folder / "data")
    finally:
        unit._stop()


def device_yaml(folder: Path, cameras: dict[str, str], bundle: Path, *more: str, sink: str = "jsonl:/dev/null") -> Path:
    """The configuration of a unit with an event log and no pictures of events."""
    path = folder / "device.yaml"
    lines = [f"data: {folder / 'data'}", f"runtime: {folder / 'run'}", f"sinks: ['{sink}']"]
    lines += ["media: {snapshots: false, clips: false}", *more, "cameras:"]
    lines += [f"  {name}: {{source: '{where}', bundle: {bundle}}}" for name, where in cameras.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run_command(config: Path) -> list[str]:
    """edge-vad run --config as a process."""
    return [sys.executable, "-m", "edge_vad", "run", "--config", str(config)]

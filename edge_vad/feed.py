"""The frames of one camera for as long as the unit lives: a live one is reconnected for ever, a stored one ends."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from edge_vad.cameras import is_live, open_camera
from edge_vad.capture import Capture
from edge_vad.errors import SourceError
from edge_vad.record import Type
from edge_vad.types import Frame

FIRST_RETRY_S, LAST_RETRY_S = 1.0, 30.0
STALL_S, STALL_PERIODS = 5.0, 10
OPENING_S = 20.0  # a network camera may take that long to deliver its first frame
STEADY_S = 10.0  # a stream that lasted so long starts the retries from the beginning
USUAL_PERIOD_S = 0.04


@dataclass(frozen=True, slots=True)
class Notice:
    """Something to record that is not an anomaly: see `edge_vad.record.Record`."""

    type: Type
    kind: str
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Counters:
    """Frames of a camera since the start. captured: by the device; dropped: newer ones came first; lost: connections."""

    captured: int = 0
    taken: int = 0
    dropped: int = 0
    lost: int = 0


class Feed(ABC):
    """Frames of one camera.

    Required
    --------
    poll()      the next frame to score, if there is one now, and what happened on the way.
    ended       whether there will never be another one.
    close()     release the device.
    """

    live: bool

    def __init__(self) -> None:
        self.counters = Counters()

    @abstractmethod
    def poll(self) -> tuple[Frame | None, list[Notice]]: ...

    @property
    @abstractmethod
    def ended(self) -> bool: ...

    @abstractmethod
    def close(self) -> None: ...

    def fileno(self) -> int | None:
        """What to wait for; None when `poll` has to be called from time to time."""
        return None


class StoredFeed(Feed):
    """Footage: every frame in its order, as fast as they are taken. SourceError when it cannot be read."""

    live = False

    def __init__(self, source: str, fps: float | None) -> None:
        super().__init__()
        self.camera = open_camera(source, fps)
        self.n_frames = self.camera.n_frames
        self._frames = self.camera.frames()
        self._ended = False

    def poll(self) -> tuple[Frame | None, list[Notice]]:
        frame = next(self._frames, None)
        self._ended = frame is None
        if frame is not None:
            self.counters.captured = frame.index + 1
            self.counters.taken += 1
        return frame, []

    @property
    def ended(self) -> bool:
        return self._ended

    def close(self) -> None:
        self.camera.close()


class LiveFeed(Feed):
    """The newest frame of a device that may go away at any time, and come back.

    One record when it is lost, one when it is back with the length of the gap. Retries after 1, 2, 4 .. 30 s, for ever.
    Time is monotonic throughout: a wall clock that steps changes nothing.
    """

    live = True

    def __init__(
        self,
        source: str,
        fps: float | None = None,
        size: tuple[int, int] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._source, self._fps, self._size, self._clock = source, fps, size, clock
        self._capture: Capture | None = None
        self._retry_at = clock()
        self._retry_s = FIRST_RETRY_S
        self._connected_at = self._newest_at = clock()
        self._period_s = 1 / fps if fps else USUAL_PERIOD_S
        self._lost_at: float | None = None
        self._first_index: int | None = None
        self._last_index = 0

    @property
    def ended(self) -> bool:
        return False

    @property
    def connected(self) -> bool:
        """Whether frames come."""
        return self._capture is not None and self._lost_at is None and self._first_index is not None

    @property
    def pid(self) -> int | None:
        """Process id of the capture process."""
        return self._capture.pid if self._capture else None

    def fileno(self) -> int | None:
        return self._capture.fileno() if self._capture else None

    def poll(self) -> tuple[Frame | None, list[Notice]]:
        now = self._clock()
        if self._capture is None:
            if now >= self._retry_at:
                self._connect(now)
            return None, []
        try:
            frame = self._capture.newest()
            self._check_stall(now, frame)
        except SourceError as error:
            return None, self._disconnect(now, str(error))
        return frame, self._count(now, frame) if frame is not None else []

    def lost_since(self, moment: float) -> None:
        """It was told before that this camera is lost: its next frame says that it is back."""
        self._lost_at = moment

    def restart(self, reason: str) -> list[Notice]:
        """Open the device again, after something else than its end: another picture size."""
        return self._disconnect(self._clock(), reason)

    def close(self) -> None:
        if self._capture:
            self._capture.close()
            self._capture = None

    def _connect(self, now: float) -> None:
        self._capture = Capture(self._source, self._fps, self._size)
        self._connected_at = self._newest_at = now
        self._first_index = None

    def _check_stall(self, now: float, frame: Frame | None) -> None:
        """A read that never returns: the process is ended and started again."""
        if frame is not None:
            return
        opening = self._first_index is None
        limit = OPENING_S if opening else max(STALL_S, STALL_PERIODS * self._period_s)
        if now - self._newest_at > limit:
            raise SourceError(f"no frame for {limit:.1f} s")

    def _count(self, now: float, frame: Frame) -> list[Notice]:
        notices = []
        counters = self.counters
        if self._first_index is None:
            self._first_index = self._last_index = frame.index
            counters.captured += 1
            if self._lost_at is not None:
                notices.append(Notice("camera", "back", {"gap_s": round(now - self._lost_at, 2)}))
                self._lost_at = None
        else:
            step = max(1, frame.index - self._last_index)
            counters.captured += step
            counters.dropped += step - 1
            self._period_s += 0.1 * (min((now - self._newest_at) / step, 1.0) - self._period_s)
            self._last_index = frame.index
        counters.taken += 1
        self._newest_at = now
        if now - self._connected_at > STEADY_S:
            self._retry_s = FIRST_RETRY_S
        return notices

    def _disconnect(self, now: float, reason: str) -> list[Notice]:
        self.close()
        self._retry_at = now + self._retry_s * random.uniform(0.8, 1.2)
        self._retry_s = min(2 * self._retry_s, LAST_RETRY_S)
        if self._lost_at is not None:
            return []  # it was told
        self._lost_at = self._newest_at  # the gap began with the last frame, not when it was noticed
        self.counters.lost += 1
        return [Notice("camera", "lost", {"reason": reason})]


def open_feed(source: str, fps: float | None = None, size: tuple[int, int] | None = None) -> Feed:
    """The feed of a source; a live one is not connected yet. SourceError when there is no such source."""
    return LiveFeed(source, fps, size) if is_live(source) else StoredFeed(source, fps)

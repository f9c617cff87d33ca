"""Pictures of events: a snapshot when one starts, a clip from before it until after it.

Everything that can be slow or fail happens in a thread of its own; what the thread cannot take is counted as skipped.
Files appear under their name when they are complete.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edge_vad.avi import AviWriter
from edge_vad.delivery import Complaints
from edge_vad.device import MediaSettings
from edge_vad.errors import EdgeVadError, OutputError
from edge_vad.files import make_folder, sync_folder, write_atomically
from edge_vad.plugins import require
from edge_vad.record import BOOT_ID
from edge_vad.types import Frame, Result, UInt8

log = logging.getLogger(__name__)

PRE_ROLL_BYTES = 24 * 2**20
QUEUE_BYTES = 16 * 2**20  # of pictures between caller and thread; the one that goes beyond it is the last
QUEUE_PICTURES, QUEUE_EVENTS = 8, 4
MAX_OPEN = 4  # clips at a time
SNAPSHOT_WIDTH = 1920
QUALITY = 80
SLACK_S = 1e-6  # what rounding does to time stamps
IDLE_S = 10.0  # without pictures: what is open is closed
HOLD_OFF_S = 10.0  # after an error of the medium nothing is promised
CHECK_BYTES = 2**20  # of a growing clip, between two looks at the space
FULL_RED = 1.5  # of the anomaly map, in the unit of the score
FIRST_YEAR = 2024  # an earlier wall clock was never set
_RED, _YELLOW, _GREY = (24, 24, 214), (51, 221, 255), (40, 40, 40)  # as OpenCV writes: blue, green, red


@dataclass(frozen=True, slots=True)
class _Picture:
    timestamp: float
    image: UInt8


@dataclass(frozen=True, slots=True)
class _Start:
    key: int
    timestamp: float
    result: Result
    scale: float
    image: UInt8 | None
    snapshot: Path | None
    clip: Path | None


@dataclass(frozen=True, slots=True)
class _End:
    key: int


@dataclass(slots=True)
class _Clip:
    """A clip that is being written; ``until``: on the frames' clock, None while the event lasts."""

    writer: AviWriter
    path: Path
    shape: tuple[int, ...]
    first: float
    last: float
    seen: float
    checked: int = 0
    until: float | None = None


class Media:
    """The pictures of one camera, in the folder ``folder/camera``. Nothing here raises or waits for a disk."""

    def __init__(self, folder: Path, camera: str, settings: MediaSettings) -> None:
        """folder: shared by all cameras; the quota is of all that is in it."""
        self._cv2 = require("cv2", "opencv-python-headless", "pictures of events")
        self._root, self._folder, self._camera, self._settings = folder, folder / camera, camera, settings
        self._boot = _boot()
        self._clip_bytes = settings.quota_mb * 2**20 // 4  # what one clip takes at most
        self._check_bytes = min(CHECK_BYTES, self._clip_bytes // 4)
        self._next = self._last = float("-inf")
        self._n_events = 0
        self._keys: dict[int, int] = {}  # of the events that last; their own numbers begin anew with a camera
        self._inbox: deque[_Picture | _Start | _End] = deque()
        self._n_pictures = self._n_starts = self._queued_bytes = 0
        self._changed = threading.Condition()
        self._closing = False
        self._hold_off_until = 0.0
        self._ring: deque[tuple[float, tuple[int, ...], bytes]] = deque()
        self._ring_bytes = 0
        self._clips: dict[int, _Clip] = {}
        self._newest_s = 0.0
        self._complaints = Complaints()
        self._counts = dict.fromkeys(("snapshots", "clips", "skipped", "failed", "deleted"), 0)
        self._last_error = ""
        self._thread = threading.Thread(target=self._run, name=f"media {camera}", daemon=True)
        self._thread.start()

    # The caller's side

    def see(self, frame: Frame, result: Result) -> None:
        """Every scored frame, in order: it may belong to a clip, also to one of an event that comes later."""
        if not self._settings.clips or not self._due(frame.timestamp):
            return
        with self._changed:
            if self._closing or self._n_pictures >= QUEUE_PICTURES or self._queued_bytes > QUEUE_BYTES:
                self._counts["skipped"] += 1
                return
        try:
            picture = _Picture(frame.timestamp, self._copy(frame.image, self._settings.width))
        except Exception as error:
            self._failed(error)
            return
        self._put(picture)

    def start(self, event_id: int, result: Result, frame: Frame) -> dict[str, str]:
        """An event starts with this frame, which was seen before. Returns the files that will be there, below the folder.

        Nothing is promised while the medium fails or the thread is behind.
        """
        names = self._names(event_id)
        with self._changed:
            if not names or self._closing:
                return {}
            if self._n_starts >= QUEUE_EVENTS or time.monotonic() < self._hold_off_until:
                self._counts["failed"] += len(names)
                return {}
        try:
            image = self._copy(frame.image, SNAPSHOT_WIDTH) if "snapshot" in names else None
        except Exception as error:
            self._failed(error)
            return {}
        scale = image.shape[1] / frame.image.shape[1] if image is not None else 1.0
        paths = {kind: self._root / name for kind, name in names.items()}
        self._n_events += 1
        if "clip" in names:
            self._keys[event_id] = self._n_events
            if len(self._keys) > 2 * MAX_OPEN:  # one whose end was never told
                del self._keys[next(iter(self._keys))]
        what = (frame.timestamp, result, scale, image, paths.get("snapshot"), paths.get("clip"))
        self._put(_Start(self._n_events, *what))
        return names

    def end(self, event_id: int) -> None:
        """The event is over; its clip goes on for ``post_s``."""
        key = self._keys.pop(event_id, None)
        if key is not None:
            self._put(_End(key))

    def status(self) -> dict[str, Any]:
        """Plain values: files written, pictures skipped, files that could not be written, files deleted, the last error."""
        pre_roll_mb = round(self._ring_bytes / 2**20, 2)
        return {**self._counts, "open": len(self._clips), "pre_roll_mb": pre_roll_mb, "last_error": self._last_error}

    def close(self, timeout: float = 3.0) -> None:
        """Complete what is open and stop; a medium that hangs is left behind."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _due(self, timestamp: float) -> bool:
        """Whether the next picture of a clip is due; a clock that went back began anew."""
        if timestamp < self._last:
            self._next = timestamp
        self._last = timestamp
        period = 1 / self._settings.fps
        if timestamp < self._next - 0.25 * period:  # time stamps jitter
            return False
        self._next = self._next + period if self._next + period > timestamp else timestamp + period
        return True

    def _copy(self, image: UInt8, width: int) -> UInt8:
        """The picture as OpenCV wants it, at most ``width`` wide; the frame itself belongs to the camera."""
        if image.shape[1] > width:
            size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
            image = self._cv2.resize(image, size, interpolation=self._cv2.INTER_LINEAR)
        return np.asarray(self._cv2.cvtColor(image, self._cv2.COLOR_RGB2BGR))

    def _names(self, event_id: int) -> dict[str, str]:
        now = datetime.now(timezone.utc)
        if now.year >= FIRST_YEAR:
            stamp = now.strftime("%Y%m%dT%H%M%SZ")
        else:
            stamp = f"boot-{self._boot}-{int(time.monotonic()):08d}s"
        wanted = {"snapshot": self._settings.snapshots, "clip": self._settings.clips}
        suffixes = {"snapshot": "jpg", "clip": "avi"}
        return {kind: f"{self._camera}/{stamp}-{event_id}.{suffixes[kind]}" for kind, want in wanted.items() if want}

    def _put(self, item: _Picture | _Start | _End) -> None:
        with self._changed:
            if isinstance(item, _Picture):
                self._n_pictures += 1
                self._queued_bytes += item.image.nbytes
            elif isinstance(item, _Start):
                self._n_starts += 1
            self._inbox.append(item)
            self._changed.notify()

    # The thread

    def _run(self) -> None:
        self._clean()
        while True:
            with self._changed:
                if not self._inbox and not self._closing:
                    self._changed.wait(IDLE_S if self._clips else None)
                item = self._inbox.popleft() if self._inbox else None
                if isinstance(item, _Picture):
                    self._n_pictures -= 1
                    self._queued_bytes -= item.image.nbytes
                closing = self._closing
            if item is None and closing:
                break
            self._handle(item)
        for key in list(self._clips):
            self._finish(key)

    def _handle(self, item: _Picture | _Start | _End | None) -> None:
        try:
            if isinstance(item, _Picture):
                self._keep(item)
            elif isinstance(item, _End) and item.key in self._clips:
                clip = self._clips[item.key]
                clip.until = clip.last + self._settings.post_s
            for key, clip in list(self._clips.items()):
                if time.monotonic() - clip.seen >= IDLE_S:
                    self._finish(key)
        except Exception as error:
            self._failed(error)
        if isinstance(item, _Start):
            for begin in (self._take_snapshot, self._open_clip):
                try:
                    begin(item)
                except Exception as error:
                    self._failed(error)
            with self._changed:
                self._n_starts -= 1

    def _keep(self, picture: _Picture) -> None:
        """Into the pre-roll, and into what is open."""
        good, encoded = self._cv2.imencode(".jpg", picture.image, [self._cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if not good:
            raise EdgeVadError("a picture cannot be encoded as JPEG")
        jpeg, now, shape = encoded.tobytes(), picture.timestamp, picture.image.shape
        if self._ring and (now < self._ring[-1][0] or shape != self._ring[-1][1]):
            self._ring.clear()  # another clock or size: the camera began anew
            self._ring_bytes = 0
        self._ring.append((now, shape, jpeg))
        self._ring_bytes += len(jpeg)
        while self._ring[0][0] < now - self._settings.pre_s - SLACK_S or self._ring_bytes > PRE_ROLL_BYTES:
            self._ring_bytes -= len(self._ring.popleft()[2])
            if not self._ring:
                break
        for key, clip in list(self._clips.items()):
            over = clip.until is not None and now > clip.until + SLACK_S
            if over or shape != clip.shape or now < clip.last or now - clip.first >= self._settings.max_s - SLACK_S:
                self._finish(key)
            else:
                self._add(key, clip, now, jpeg)

    def _take_snapshot(self, start: _Start) -> None:
        if start.image is None or start.snapshot is None:
            return
        drawn = draw(start.image, start.result, start.scale)
        good, encoded = self._cv2.imencode(".jpg", drawn, [self._cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        if not good:
            raise EdgeVadError("a snapshot cannot be encoded as JPEG")
        make_folder(self._folder)
        self._make_room(len(encoded))
        write_atomically(start.snapshot, encoded.tobytes())
        self._date(start.snapshot)
        self._counts["snapshots"] += 1
        self._last_error = ""

    def _open_clip(self, start: _Start) -> None:
        if start.clip is None:
            return
        pre_s = min(self._settings.pre_s, self._settings.max_s / 2) + SLACK_S
        before = [item for item in self._ring if start.timestamp - pre_s <= item[0] <= start.timestamp]
        before = before or list(self._ring)[-1:]
        if not before:
            raise EdgeVadError("there is no picture for the clip")
        if len(self._clips) >= MAX_OPEN:
            raise EdgeVadError(f"{MAX_OPEN} clips are being written already")
        shape = before[-1][1]
        make_folder(self._folder)
        self._make_room(sum(len(jpeg) for _, _, jpeg in before) + self._check_bytes)
        writer = AviWriter(start.clip.with_name(f".{start.clip.name}.new"), (shape[1], shape[0]))
        clip = _Clip(writer, start.clip, shape, before[0][0], before[0][0], time.monotonic())
        self._clips[start.key] = clip
        for timestamp, _, jpeg in before:
            if start.key in self._clips:
                self._add(start.key, clip, timestamp, jpeg)

    def _add(self, key: int, clip: _Clip, timestamp: float, jpeg: bytes) -> None:
        """One more picture; a clip that fails is given up, one that is too large is complete."""
        try:
            clip.writer.add(jpeg)
            clip.last, clip.seen = timestamp, time.monotonic()
            if clip.writer.n_bytes - clip.checked >= self._check_bytes:
                clip.checked = clip.writer.n_bytes
                clip.writer.sync()
                self._make_room(self._check_bytes)
        except Exception as error:
            self._give_up(key, error)
            return
        if clip.writer.n_bytes >= self._clip_bytes:
            self._finish(key)

    def _finish(self, key: int) -> None:
        clip = self._clips[key]
        seconds = clip.last - clip.first
        fps = (clip.writer.n_frames - 1) / seconds if seconds > 0 else self._settings.fps
        try:
            clip.writer.finish(min(max(fps, 0.1), 120.0))
            clip.writer.path.rename(clip.path)
            sync_folder(self._folder)
            self._date(clip.path)
        except Exception as error:
            self._give_up(key, error)
            return
        del self._clips[key]
        self._counts["clips"] += 1
        self._last_error = ""

    def _give_up(self, key: int, error: Exception) -> None:
        clip = self._clips.pop(key)
        clip.writer.close()
        with contextlib.suppress(OSError):
            clip.writer.path.unlink()
        self._failed(error)

    def _failed(self, error: Exception) -> None:
        """Counted, told once a minute, and tried again with the next event."""
        expected = isinstance(error, (OSError, EdgeVadError))
        reason = str(getattr(error, "strerror", None) or error) if expected else f"{type(error).__name__}: {error}"
        with self._changed:
            self._counts["failed"] += 1
        self._last_error = reason
        if isinstance(error, (OSError, OutputError)):
            self._hold_off_until = time.monotonic() + HOLD_OFF_S
        self._complaints.say(f"camera {self._camera}: a picture of an event is left out: {reason}", trace=not expected)

    # The medium

    def _clean(self) -> None:
        """Delete what a crash left incomplete."""
        try:
            for path in self._folder.glob(".*.new"):
                path.unlink()
        except OSError as error:
            log.warning("%s: cannot be tidied up: %s", self._folder, error.strerror)

    def _make_room(self, n_bytes: int) -> None:
        """Delete the oldest files until ``n_bytes`` more keep within the quota. OutputError where they have no room."""
        total = 0
        for _, status in _files(self._root):
            total += status.st_size
            self._newest_s = max(self._newest_s, status.st_mtime)
        excess = total + n_bytes - self._settings.quota_mb * 2**20
        doomed = []
        for _, path, size in _finished(self._root) if excess > 0 else ():  # no list of thousands of files for each picture
            doomed.append((path, size))
            excess -= size
            if excess <= 0:
                break
        if excess > 0:
            raise OutputError(f"the quota of {self._settings.quota_mb} MB is too small")
        free = shutil.disk_usage(self._root).free + sum(size for _, size in doomed)
        if free - n_bytes < self._settings.min_free_mb * 2**20:
            raise OutputError(f"less than {self._settings.min_free_mb} MB would be free on the medium")
        for path, _ in doomed:
            with contextlib.suppress(FileNotFoundError):  # another camera's thread deletes too
                os.unlink(path)  # noqa: PTH108
            self._counts["deleted"] += 1

    def _date(self, path: Path) -> None:
        """Newer than all others: the wall clock may have stepped, and the oldest are deleted first."""
        now = time.time()
        self._newest_s = max(now, self._newest_s + 0.01)
        if self._newest_s > now:
            os.utime(path, (self._newest_s, self._newest_s))


def draw(image: UInt8, result: Result, scale: float = 1.0) -> UInt8:
    """A picture (H, W, 3) BGR with the scored regions; beside it, a third as wide, the same tinted by the anomaly map.

    scale: pixels of the picture for each pixel of the frame.
    """
    cv2 = require("cv2", "opencv-python-headless", "pictures of events")
    height, width = image.shape[:2]
    size = (max(32, width // 3), max(1, round(height * max(32, width // 3) / width)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if result.anomaly_map.size:
        values = cv2.resize(np.nan_to_num(result.anomaly_map.astype(np.float32)), size, interpolation=cv2.INTER_LINEAR)
        alpha = 0.7 * np.clip(values / FULL_RED, 0, 1)[:, :, None]
        small = (small * (1 - alpha) + np.array(_RED, np.float32) * alpha).astype(np.uint8)
    boxed, line = image.copy(), max(1, width // 400)
    for region in reversed(result.regions):  # the highest on top
        low, high = ((round(x * scale), round(y * scale)) for x, y in ((region.x0, region.y0), (region.x1, region.y1)))
        cv2.rectangle(boxed, low, high, _RED if region.score >= 1 else _YELLOW, line)
    canvas: UInt8 = np.empty((max(height, size[1]), width + size[0], 3), np.uint8)
    canvas[:] = _GREY
    canvas[:height, :width] = boxed
    canvas[: size[1], width:] = small
    at = (width + 8, min(size[1] + 28, canvas.shape[0] - 8))
    cv2.putText(canvas, f"{result.score:.2f}", at, cv2.FONT_HERSHEY_SIMPLEX, 0.8, (255, 255, 255), 2, cv2.LINE_AA)
    return canvas


def _finished(folder: Path) -> list[tuple[float, str, int]]:
    """Time, path and size of the complete pictures and clips, the oldest first."""
    found = ((status.st_mtime, path, status.st_size) for path, status in _files(folder))
    return sorted(entry for entry in found if entry[1].endswith((".jpg", ".avi")))


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Path and status of all files in the folders of a folder."""
    with os.scandir(folder) as cameras:
        for camera in [entry.path for entry in cameras if entry.is_dir(follow_symlinks=False)]:
            with os.scandir(camera) as files:
                for entry in files:
                    with contextlib.suppress(FileNotFoundError):  # another camera's thread deletes too
                        if entry.is_file(follow_symlinks=False):
                            yield entry.path, entry.stat(follow_symlinks=False)


def _boot() -> str:
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()[:8]
    except OSError:
        return uuid.uuid4().hex[:8]

"""One unit at work: its cameras, one loop, and everything that has to happen between two frames.

    feeds -newest frames-> channels -results-> media, delivery (event log -> sinks), status, watchdog

Cameras run in processes of their own, remote sinks and media in threads of their own; all scoring happens here. A camera
that fails ends alone. The loop is never blocked for longer than one frame takes, or one synced write.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_vad.batch import run_together
from edge_vad.channel import Channel
from edge_vad.delivery import Delivery
from edge_vad.device import Device
from edge_vad.errors import BackendError, EdgeVadError, OutputError
from edge_vad.eventlog import EventLog, read
from edge_vad.feed import LiveFeed
from edge_vad.notify import Notifier
from edge_vad.profile import Profile
from edge_vad.progress import REFRESH_S, show
from edge_vad.record import Recorder, Type
from edge_vad.recovery import Sessions
from edge_vad.status import remove_status, status_path, write_status
from edge_vad.telemetry import telemetry
from edge_vad.types import Event, Frame, Result

if TYPE_CHECKING:
    from edge_vad.media import Media
    from edge_vad.page import StatusPage

log = logging.getLogger(__name__)
HOUSEKEEPING_S = 2.0
SWEEP_S = 60.0
IDLE_S = 0.2
REOPEN_S = 30.0
N_RECENT = 50


class Unit:
    """Runs a device configuration until it is told to stop, or until all its footage has ended."""

    def __init__(self, device: Device, profile: Profile) -> None:
        """Opens everything that can be wrong at once: bundles, sinks, folders. Raises EdgeVadError."""
        self._device, self._profile = device, profile
        self._stopping = ""
        data = Path(device.data) if device.data else None
        self._log = EventLog(data / "events", device.log_quota_mb * 2**20) if data else None
        self._recorder = Recorder(self._log.last_seq if self._log else 0)
        self._recent: deque[dict[str, Any]] = deque(maxlen=N_RECENT)
        self._delivery = Delivery(device.sinks, self._log)
        self._storage_full = False
        self._notifier = Notifier()
        self._started = time.monotonic()
        self._housekeeping_at = self._swept_at = self._shown_at = 0.0
        self._page: StatusPage | None = None
        self._channels: list[Channel] = []
        self._sessions = Sessions(lambda kind, why: self._emit("", "backend", kind, {"reason": why}))
        self._reopen: dict[str, float] = {}
        self._failed: dict[str, str] = {}
        self._failed_at: dict[str, float] = {}
        for name, settings in device.cameras.items():
            self._channels.append(Channel(name, settings, profile, self._sessions, self._emit))
        self._media: dict[str, Media] = {}
        if data is not None and (device.media.snapshots or device.media.clips):
            from edge_vad.media import Media

            self._media = {name: Media(data / "media", name, device.media) for name in device.cameras}
        self._live = any(channel.feed.live for channel in self._channels)
        self._status_path = status_path(Path(device.runtime), device.name) if self._live else None
        if device.page.enabled:
            self._page = self._open_page(data)

    def _open_page(self, data: Path | None) -> StatusPage:
        """The status page, with the events that the newest file of the log still knows."""
        from edge_vad.page import StatusPage

        page = StatusPage(self._device.page, self._device.name, data / "media" if data else None)
        if self._log:
            with suppress(OSError):
                page.remember(record.plain() for _, record in read(self._log.folder, (self._log.end[0], 0)))
        return page

    @property
    def channels(self) -> list[Channel]:
        """The cameras that are watched."""
        return self._channels

    def run(self) -> None:
        """Watch. Raises the error of the one stored source that cannot be read; live cameras never raise."""
        with self._signals(), _quick_sweeps():
            self._tell_of_itself("started", {"cameras": [c.name for c in self._channels]})
            self._notifier.ready()
            try:
                while not self._stopping and not all(self._has_ended(c) for c in self._channels):
                    worked = self._round()
                    self._keep_house()
                    if not worked:
                        self._wait()
            finally:
                self._stop()

    def stop(self, reason: str) -> None:
        """End the loop after the frame that is being scored."""
        self._stopping = self._stopping or reason

    # One round of the loop

    def _round(self) -> bool:
        """One frame of every camera that has one, encoded together; whether there was any."""
        ready = [(channel, frame) for channel in self._channels if (frame := self._poll(channel)) is not None]
        results = run_together([channel.detector.steps(frame) for channel, frame in ready])
        for (channel, frame), result in zip(ready, results, strict=True):
            with self._alone(channel):
                if isinstance(result, BackendError):
                    channel.replace_backend(str(result))
                elif isinstance(result, Exception):
                    raise result
                else:
                    channel.take(result)
                    self._deliver(channel, frame, result)
                    channel.finish(frame, result)
                    self._show(channel, result)
        return bool(ready)

    def _poll(self, channel: Channel) -> Frame | None:
        if channel.name in self._failed:
            self._try_again(channel)
            return None
        with self._alone(channel):
            return channel.poll()
        return None

    @contextmanager
    def _alone(self, channel: Channel) -> Iterator[None]:
        """What fails in one camera stays there, where there are others or where it may come back."""
        try:
            yield
        except (BrokenPipeError, KeyboardInterrupt):
            raise
        except EdgeVadError as error:
            if len(self._channels) == 1 and not channel.feed.live:
                raise
            self._fail(channel, str(error))
        except Exception as error:
            if not channel.feed.live:
                raise
            log.exception("camera %s: an error inside edge-vad; please report it", channel.name)
            self._fail(channel, f"internal error: {type(error).__name__}: {error}")

    def _deliver(self, channel: Channel, frame: Frame, result: Result) -> None:
        if self._page:
            self._page.see(channel.name, frame, result)
        media = self._media.get(channel.name)
        if media:
            media.see(frame, result)
        for event in result.events:
            self._deliver_event(
                channel, event, media.start(event.id, result, frame) if media and event.kind == "start" else {}
            )

    def _deliver_event(self, channel: Channel, event: Event, files: Mapping[str, Any]) -> None:
        channel.n_events += event.kind == "start"
        self._emit(channel.name, "anomaly", event.kind, {**channel.event_data(event), **files})

    def _emit(self, camera: str, type: Type, kind: str, data: Mapping[str, Any]) -> None:
        record = self._recorder.record(camera, type, kind, data)
        if type == "anomaly" and kind == "end" and camera in self._media:
            self._media[camera].end(data["id"])
        self._recent.append(plain := record.plain())
        if self._page:
            self._page.record(plain)
        self._delivery.write(record)
        if type != "anomaly":
            details = ", ".join(f"{key} {value}" for key, value in data.items())
            log.info("%s: %s %s%s", camera or self._device.name, type, kind, f": {details}" if details else "")

    def _wait(self) -> None:
        """Until a camera has something, or a retry may be due."""
        handles = [h for channel in self._channels if (h := channel.feed.fileno()) is not None]
        try:
            select.select(handles, [], [], IDLE_S)
        except OSError as error:  # a capture process was closed in between
            log.debug("select: %s", error)

    # A camera that failed for good, for now

    def _fail(self, channel: Channel, reason: str) -> None:
        """Leave one camera alone for a while: the others go on."""
        for event in channel.end():
            self._deliver_event(channel, event, {})
        channel.error = reason
        channel.close()
        self._failed[channel.name] = reason
        self._failed_at[channel.name] = time.monotonic()
        self._reopen[channel.name] = self._failed_at[channel.name] + REOPEN_S
        self._emit(channel.name, "camera", "lost", {"reason": reason})

    def _has_ended(self, channel: Channel) -> bool:
        return channel.feed.ended or (channel.name in self._failed and not channel.feed.live)

    def _try_again(self, channel: Channel) -> None:
        if not channel.feed.live or time.monotonic() < self._reopen[channel.name]:
            return
        try:
            fresh = Channel(channel.name, self._device.cameras[channel.name], self._profile, self._sessions, self._emit)
        except Exception as error:
            self._reopen[channel.name] = time.monotonic() + REOPEN_S
            log.error("camera %s cannot be watched yet: %s", channel.name, error)
            return
        if isinstance(fresh.feed, LiveFeed):
            fresh.feed.lost_since(self._failed_at[channel.name])
        self._channels[self._channels.index(channel)] = fresh
        del self._failed[channel.name], self._reopen[channel.name]

    # Between frames

    def _keep_house(self) -> None:
        now = time.monotonic()
        if now - self._housekeeping_at < HOUSEKEEPING_S:
            return
        self._housekeeping_at = now
        if now - self._swept_at >= SWEEP_S:
            self._swept_at = now
            gc.collect()
        self._delivery.tick()
        if bool(self._delivery.log_failing) != self._storage_full:
            self._storage_full = not self._storage_full
            self._emit("", "storage", "full" if self._storage_full else "writable", {"reason": self._delivery.log_failing})
        if all(channel.progressing for channel in self._channels):
            self._notifier.alive(self._one_line())
        if self._status_path or self._page:
            status = self.status()
            if self._status_path:
                write_status(self._status_path, status)
            if self._page:
                self._page.status(status)

    def status(self) -> dict[str, Any]:
        """Everything that `edge-vad status` shows, as plain values."""
        states = {channel.name: channel.status() for channel in self._channels}
        bad = sorted({s["state"] for s in states.values()} - {"running", "ended"})
        return {
            "unit": self._device.name,
            "state": self._stopping or (bad[0] if bad else "running"),
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started, 1),
            "updated_monotonic_s": round(time.monotonic(), 2),
            "cameras": states,
            "media": {name: media.status() for name, media in self._media.items()},
            "delivery": self._delivery.status(),
            "device": telemetry(),
            "recent": list(self._recent),
        }

    def _one_line(self) -> str:
        frames = sum(channel.n_scored for channel in self._channels)
        return f"{len(self._channels)} cameras, {frames} frames scored, {sum(c.n_events for c in self._channels)} events"

    def _show(self, channel: Channel, result: Result) -> None:
        if time.monotonic() - self._shown_at > REFRESH_S:
            self._shown_at = time.monotonic()
            bar = "#" * int(min(max(result.score, 0.0), 2.0) * 10)
            alarm = " ALARM" if result.score >= 1 else ""
            show(f"{channel.name}: frame {result.index}  events {channel.n_events}  score {result.score:5.2f} {bar}{alarm}")

    # The end

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT end the loop between two frames; nothing that was accepted is lost."""

        def stop(number: int, _: object) -> None:
            if self._stopping and number == signal.SIGINT:
                raise KeyboardInterrupt  # asked twice: now
            self.stop(signal.Signals(number).name)

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self) -> None:
        """Everything out and synced, within the five seconds that a service manager waits."""
        self._notifier.stopping()
        show("")
        if self._page:
            self._page.close()
        for channel in self._channels:
            channel.close()
            for event in () if channel.name in self._failed else channel.end():
                with suppress(BrokenPipeError):  # the log and all other sinks have it
                    self._deliver_event(channel, event, {})
        with suppress(BrokenPipeError):
            self._tell_of_itself("stopped", {"reason": self._stopping or "the footage ended"})
        for media in self._media.values():
            media.close(1.5)
        self._delivery.close()
        if self._log:
            try:
                self._log.close()
            except OutputError as error:
                log.error("%s", error)
        if self._status_path:
            remove_status(self._status_path)

    def _tell_of_itself(self, kind: str, data: Mapping[str, Any]) -> None:
        if self._live:  # footage that is scored and done with is no unit that somebody watches over
            self._emit("", "unit", kind, data)

    @property
    def stopped_by(self) -> str:
        """Name of the signal that ended it, or nothing."""
        return self._stopping


@contextmanager
def _quick_sweeps() -> Iterator[None]:
    """Garbage collection that looks at what came since the start only: well below a millisecond instead of twenty.

    Python puts full collections off until a quarter of all objects is new, which takes hours here; until then its lists of
    free tuples grow by megabytes.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

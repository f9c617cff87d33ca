"""One camera of a unit: its frames in, records out, whatever happens to camera, backend or bundle."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_vad.bundle import Bundle, read_bundle
from edge_vad.detector import Detector
from edge_vad.device import CameraSettings
from edge_vad.drift import Drift
from edge_vad.errors import EdgeVadError, SourceError
from edge_vad.feed import Feed, LiveFeed, Notice, open_feed
from edge_vad.profile import Profile
from edge_vad.record import Type, event_data
from edge_vad.recovery import Sessions
from edge_vad.store import Store
from edge_vad.types import Event, Frame, Result
from edge_vad.view import ViewMonitor

log = logging.getLogger(__name__)

Emit = Callable[[str, Type, str, Mapping[str, Any]], None]  # camera, type, kind, data
LOAD_S = 60.0
OVERLOAD, RELIEF = 0.5, 0.25  # dropped part of the frames
N_LATENCIES = 1000
RATE_S = 10.0


@dataclass(slots=True)
class Load:
    """Whether the unit keeps up with a camera: the part of its frames that newer ones replaced, over a minute."""

    degraded: bool = False
    _samples: deque[tuple[float, int, int]] = field(default_factory=deque)

    def update(self, now: float, captured: int, dropped: int) -> bool | None:
        """Counters since the start; the new state when it has changed, else None."""
        if self._samples and now - self._samples[-1][0] < LOAD_S / 60:
            return None  # a sample a second: memory does not grow with the frame rate
        self._samples.append((now, captured, dropped))
        while len(self._samples) > 2 and now - self._samples[1][0] >= LOAD_S:
            self._samples.popleft()
        start_s, captured_before, dropped_before = self._samples[0]
        if now - start_s < LOAD_S or captured == captured_before:
            return None
        part = (dropped - dropped_before) / (captured - captured_before)
        degraded = part > (RELIEF if self.degraded else OVERLOAD)
        if degraded == self.degraded:
            return None
        self.degraded = degraded
        return degraded


class Channel:
    """Follows one camera. Every fault ends in a record and in the next frame, or in an error of this camera alone."""

    def __init__(self, name: str, settings: CameraSettings, profile: Profile, sessions: Sessions, emit: Emit) -> None:
        """Opens bundle and detector; the camera is not connected yet. Raises BundleError, SourceError, BackendError."""
        self.name = name
        self._sessions = sessions
        self._settings, self._profile = settings, profile
        self._emit_record = emit
        self._choices = profile.inference.choices
        self._choice = 0
        self.bundle, self.detector = self._open()
        self.image_size = self.bundle.image_size
        self._drift = Drift(self.detector.weights)
        self.feed: Feed = open_feed(settings.source, settings.fps, self.image_size)
        self._view = ViewMonitor()
        self._load = Load()
        self._wrong_size: tuple[int, int] | None = None
        self._first_scored_s: float | None = None
        self._confirmed = settings.store is None or self._store.attempts_made is None
        self.last: Result | None = None
        self.n_scored = self.n_events = self.n_skipped = 0
        self._latencies_ms: deque[float] = deque(maxlen=N_LATENCIES)  # from exposure to the end of the work on a frame
        self._event_latencies_ms: deque[float] = deque(maxlen=N_LATENCIES)  # the same, of frames whose events were written
        self._rates: deque[tuple[float, int, int]] = deque()  # when, frames captured and scored by then
        self._lost = ""
        self._stage_ms: dict[str, float] = {}
        self._scored_at = time.monotonic()
        self.error = ""

    # One frame

    def poll(self) -> Frame | None:
        """The next frame that can be scored; what happened to the camera is recorded."""
        frame, notices = self.feed.poll()
        for notice in notices:
            self._take_notice(notice)
        if frame is None or not self._fits(frame):
            return None
        self._watch_view(frame)
        return frame

    def take(self, result: Result) -> None:
        """Count the result of a frame."""
        self.last = result
        if result.stage_ms:
            self.n_scored += 1
            self._drift.update(result.timestamp, result.components)
            for stage, ms in result.stage_ms.items():
                self._stage_ms[stage] = self._stage_ms.get(stage, ms) * 0.98 + 0.02 * ms

    def finish(self, frame: Frame, result: Result) -> None:
        """After the events of a frame were delivered: clocks, load, and the trial of a new bundle."""
        now = time.monotonic()
        self._scored_at = now
        if self.feed.live and result.stage_ms:
            self._latencies_ms.append(1000 * (now - frame.timestamp))
            if result.events:
                self._event_latencies_ms.append(1000 * (now - frame.timestamp))
            self._rates.append((now, self.feed.counters.captured, self.n_scored))
            while now - self._rates[0][0] > RATE_S:
                self._rates.popleft()
        changed = self._load.update(now, self.feed.counters.captured, self.feed.counters.dropped)
        if changed is not None and self.feed.live:
            self._emit("load", "degraded" if changed else "normal", {"dropped": self.feed.counters.dropped})
        self._first_scored_s = frame.timestamp if self._first_scored_s is None else self._first_scored_s
        if not self._confirmed and frame.timestamp - self._first_scored_s >= self._profile.store.confirm_s:
            self._confirm()

    def replace_backend(self, reason: str) -> None:
        """The next allowed backend, after it has passed the self-test; the same one again when there is no other.

        Costs the frame that the last one failed on. Raises SourceError when none can run the bundle.
        """
        self.n_skipped += 1
        self._sessions.discard(self._choices[self._choice], self._epoch)
        for step in range(1, len(self._choices) + 1):
            self._choice = (self._choice + 1) % len(self._choices)
            try:
                self.detector = self._open_detector(self.bundle)
            except EdgeVadError as error:  # also a package that is not installed
                log.error("backend %s cannot take over: %s", self._choices[self._choice], error)
                continue
            kind = "replaced" if step < len(self._choices) else "rebuilt"
            self._emit("backend", kind, {"backend": str(self._choices[self._choice]), "reason": reason})
            return
        self._emit("backend", "failed", {"reason": reason})
        raise SourceError(f"{self.name}: no backend can run the bundle: {reason}")

    def event_data(self, event: Event) -> dict[str, Any]:
        """What is recorded of an event beside its own values."""
        flagged = {} if self._view.state == "clear" else {"view": self._view.state}
        return {**event_data(event), **flagged}

    # The whole

    @property
    def progressing(self) -> bool:
        """Whether this camera is being looked after: frames are scored, or it is being connected again."""
        waiting = isinstance(self.feed, LiveFeed) and not self.feed.connected
        told = bool(self.error) or self._wrong_size is not None  # recorded, and not for this process to heal
        return waiting or told or self.feed.ended or time.monotonic() - self._scored_at < 30.0

    def status(self) -> dict[str, Any]:
        """What `edge-vad status` says of this camera, as plain values."""
        connected = not isinstance(self.feed, LiveFeed) or self.feed.connected
        counters = self.feed.counters
        state = "running" if connected else "lost" if self._lost else "connecting"
        wrong_size = "pictures of {}x{}, not the bundle's size".format(*self._wrong_size) if self._wrong_size else ""
        return {
            "state": "failed" if self.error else "ended" if self.feed.ended else state,
            "reason": self.error or self._lost or wrong_size,
            "source": self._settings.source.split("@")[-1],
            "bundle": {"id": self.bundle.id[:12], "name": self.bundle.manifest.name, "serial": self.bundle.manifest.serial},
            "backend": str(self._choices[self._choice]),
            "on_trial": not self._confirmed,
            "view": self._view.state,
            "degraded": self._load.degraded,
            "score": round(self.last.score, 4) if self.last else None,
            "drift": self._drift.values(),
            "fps": self._fps(),
            "captured": counters.captured,
            "dropped": counters.dropped,
            "lost": counters.lost,
            "scored": self.n_scored,
            "skipped": self.n_skipped,
            "events": self.n_events,
            "latency_ms": _percentiles(self._latencies_ms),
            "event_latency_ms": _percentiles(self._event_latencies_ms),
            "stage_ms": {stage: round(ms, 3) for stage, ms in self._stage_ms.items()},
        }

    def end(self) -> list[Event]:
        """End a running event: the camera is closed after this."""
        return self.detector.finish()

    def close(self) -> None:
        """Release the camera."""
        self.feed.close()

    # Steps

    def _emit(self, type: Type, kind: str, data: Mapping[str, Any]) -> None:
        self._emit_record(self.name, type, kind, data)

    def _fps(self) -> dict[str, float]:
        """Frames per second that were captured and scored lately."""
        now = time.monotonic()
        if not self._rates or now - self._rates[-1][0] > RATE_S:
            return {"captured": 0.0, "scored": 0.0}
        start_s, captured, scored = self._rates[0]
        counts = {"captured": self.feed.counters.captured - captured, "scored": self.n_scored - scored}
        return {name: round(count / max(now - start_s, 1.0), 1) for name, count in counts.items()}

    def _take_notice(self, notice: Notice) -> None:
        if notice.type == "camera":
            self._lost = str(notice.data.get("reason", "")) if notice.kind == "lost" else ""
        self._emit(notice.type, notice.kind, notice.data)
        self._forget_past()

    def _forget_past(self) -> None:
        """After a gap nothing before it says anything about what comes: windows, tracks, view."""
        for event in self.detector.finish():
            self._emit("anomaly", event.kind, self.event_data(event))
        self.detector.reset()
        self._view.reset()

    def _fits(self, frame: Frame) -> bool:
        """Whether the picture has the bundle's size. A live camera is asked for it again; nothing is ever stretched."""
        size = (frame.image.shape[1], frame.image.shape[0])
        if self.image_size in (None, size) or not self.feed.live:
            if self._wrong_size is not None:
                self._wrong_size = None
                self._emit("camera", "resized", {"size": list(size), "scored": True})
            return True
        self.n_skipped += 1
        if size != self._wrong_size:
            self._wrong_size = size
            self._emit("camera", "resized", {"size": list(size), "wanted": list(self.image_size or size), "scored": False})
            self._forget_past()
            assert isinstance(self.feed, LiveFeed)
            for notice in self.feed.restart(f"pictures of {size[0]}x{size[1]}"):
                self._emit(notice.type, notice.kind, notice.data)
        return False

    def _watch_view(self, frame: Frame) -> None:
        changed = self._view.update(frame.luma, frame.timestamp) if self.feed.live else None
        if changed is not None:
            self._emit("view", changed, {})

    def _open(self) -> tuple[Bundle, Detector]:
        """The bundle and its detector on the first allowed backend that can run it."""
        if self._settings.store is None:
            bundle = read_bundle(str(self._settings.bundle), self._profile.trust.load())
            return bundle, self._open_on_first(bundle)
        self._store = Store(Path(self._settings.store), self._profile.trust.load(), self._profile.store.attempts)
        started = self._sessions.started.get(self._settings.store)
        if started is not None:  # one start of the unit is one attempt, however many cameras it has
            bundle = self._store.load(started)
            return bundle, self._open_on_first(bundle)
        before = self._store.current
        bundle, detector = self._store.start(lambda bundle: (bundle, self._open_on_first(bundle)))
        self._sessions.started[self._settings.store] = bundle.id
        if bundle.id != before:
            self._emit("bundle", "rolled_back", {"id": bundle.id, "from": before, **_reason(self._store)})
        return bundle, detector

    def _open_on_first(self, bundle: Bundle) -> Detector:
        """The detector on the first allowed backend that passes the self-test; the error of the first where none does."""
        failed: list[EdgeVadError] = []
        for number, choice in enumerate(self._choices):
            self._choice = number
            try:
                detector = self._open_detector(bundle)
            except EdgeVadError as error:
                failed.append(error)
                continue
            if failed:
                self._emit("backend", "replaced", {"backend": str(choice), "reason": str(failed[0])})
            return detector
        self._choice = 0
        raise failed[0]

    def _open_detector(self, bundle: Bundle) -> Detector:
        choice = self._choices[self._choice]
        inference = self._profile.inference.on(choice)
        self._epoch = self._sessions.epoch(choice)
        return Detector.open(bundle, replace(self._profile, inference=inference), backend=self._sessions.backend(inference))

    def _confirm(self) -> None:
        self._confirmed = True
        if self._store.attempts_made is None:  # another camera of this unit was first
            return
        try:
            self._store.confirm(self.bundle.id)
        except EdgeVadError as error:  # detection goes on; the next start counts as one more attempt
            log.error("%s: the bundle cannot be confirmed: %s", self.name, error)
            return
        self._emit("bundle", "confirmed", {"id": self.bundle.id, "serial": self.bundle.manifest.serial})


def _reason(store: Store) -> dict[str, Any]:
    return {"reason": store.last_rollback.get("reason", "it cannot run")}


def _percentiles(values: deque[float]) -> dict[str, float]:
    if not values:
        return {}
    p50, p95, p99 = np.percentile(np.array(values), [50, 95, 99])
    return {"p50": round(float(p50), 2), "p95": round(float(p95), 2), "p99": round(float(p99), 2)}

"""edge-vad run: alarms on a stream."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Sequence
from pathlib import Path

from edge_vad.cameras import Camera, open_camera
from edge_vad.commands.options import Parser, add_profile, profile_of
from edge_vad.commands.store import open_store
from edge_vad.detector import Detector
from edge_vad.errors import EdgeVadError
from edge_vad.plugins import load
from edge_vad.profile import Profile
from edge_vad.progress import REFRESH_S, show
from edge_vad.sinks.base import Sink
from edge_vad.store import Store
from edge_vad.types import Result

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    parser = Parser("run", "edge-vad run --bundle site.evb --source FILE|DIR|synthetic:seed=7,seconds=60")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--bundle", metavar="FILE.evb")
    what.add_argument("--store", type=Path, nargs="?", const=Path(), metavar="DIR", help="the store's current bundle")
    parser.add_argument("--source", required=True, help="a video, a folder of pictures, or CAMERA:LOCATION")
    add_profile(parser)
    parser.add_argument("--fps", type=float, help="frames per second of stored footage (pictures carry none; default 10)")
    parser.add_argument(
        "--sink", default="jsonl:-", metavar="NAME:LOCATION", help="where events go (default: standard output)"
    )
    options = parser.parse_args(arguments)
    profile = profile_of(options)
    if options.bundle:
        detector, on_trial = Detector.open(options.bundle, profile), None
    else:
        detector, on_trial = start_from_store(open_store(profile, options.store), profile)
    name, _, location = options.sink.partition(":")
    with open_camera(options.source, options.fps) as camera, load("sinks", name, Sink)(location) as sink:
        watch(camera, detector, sink, on_trial)
    return 0


class Trial:
    """Confirms the store's current bundle after ``confirm_s`` seconds of scored frames."""

    def __init__(self, store: Store, bundle_id: str, confirm_s: float) -> None:
        self._store, self._bundle_id, self._confirm_s = store, bundle_id, confirm_s
        self._start_s: float | None = None
        self._confirmed = False

    def scored(self, timestamp: float) -> None:
        """A frame was scored at ``timestamp``."""
        self._start_s = timestamp if self._start_s is None else self._start_s
        if self._confirmed or timestamp - self._start_s < self._confirm_s:
            return
        self._confirmed = True
        try:
            self._store.confirm(self._bundle_id)
        except EdgeVadError as error:  # detection goes on; the next start counts as one more attempt
            log.error("the bundle cannot be confirmed: %s", error)


def start_from_store(store: Store, profile: Profile) -> tuple[Detector, Trial]:
    """The detector of the store's current bundle, or of the previous one where the current one cannot run here."""
    bundle, detector = store.start(lambda bundle: (bundle, Detector.open(bundle, profile)))
    log.info("bundle %s, %s serial %d", bundle.id[:12], bundle.manifest.name, bundle.manifest.serial)
    return detector, Trial(store, bundle.id, profile.store.confirm_s)


def watch(camera: Camera, detector: Detector, sink: Sink, on_trial: Trial | None = None) -> None:
    """The live loop: every frame is scored in the caller's thread, every event is delivered before the next frame.

    A running event is ended and delivered also when the stream breaks or is interrupted.
    """
    start, shown, n_frames, n_events = time.process_time(), 0.0, 0, 0
    try:
        for frame in camera.frames():
            result = detector.process(frame)
            n_frames += 1
            if on_trial:
                on_trial.scored(frame.timestamp)
            for event in result.events:
                n_events += event.kind == "start"
                sink.write(event)
            if time.monotonic() - shown > REFRESH_S:
                shown = time.monotonic()
                show(_status(result, n_frames, n_events, camera))
    finally:
        show("")
        for event in detector.finish():
            sink.write(event)
        cpu_ms = 1000 * (time.process_time() - start) / max(n_frames, 1)
        memory_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        log.info("%d frames, %d events, %.1f CPU ms per frame, %.0f MB", n_frames, n_events, cpu_ms, memory_mb)


def _status(result: Result, n_frames: int, n_events: int, camera: Camera) -> str:
    total = f" of {camera.n_frames}" if camera.n_frames else ""
    bar = "#" * int(min(max(result.score, 0.0), 2.0) * 10)
    alarm = " ALARM" if result.score >= 1 else ""
    return f"frame {n_frames}{total}  events {n_events}  score {result.score:5.2f} {bar}{alarm}"

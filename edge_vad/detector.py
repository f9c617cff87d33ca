"""The product: frames in, anomaly scores and events out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_vad import spans
from edge_vad.anomaly_map import anomaly_map, score_map
from edge_vad.backends.base import Backend, load_backend
from edge_vad.batch import Steps, run_alone
from edge_vad.bundle import Bundle, read_bundle
from edge_vad.calibration import Calibration, Scorer
from edge_vad.errors import BundleFormatError, did_you_mean
from edge_vad.events import EventSettings, EventTracker
from edge_vad.golden import check_golden
from edge_vad.methods.base import Method, Observation
from edge_vad.plugins import available, load
from edge_vad.profile import Profile, load_profile
from edge_vad.strict import check_range, from_plain
from edge_vad.types import Event, Float32, Frame, Region, Result


@dataclass(frozen=True, slots=True)
class Scoring:
    """What calibration.json holds. period_s: seconds between two processed frames."""

    calibration: Calibration
    events: EventSettings
    period_s: float

    def __post_init__(self) -> None:
        check_range(1e-6, 1e6, period_s=self.period_s)


class Detector:
    """Scores the frames of one stream against a bundle.

    >>> detector = Detector.open("site.evb")          # doctest: +SKIP
    >>> for frame in camera.frames():                 # doctest: +SKIP
    ...     result = detector.process(frame)
    ...     print(result.score, result.events)
    """

    def __init__(self, method: Method, calibration: Calibration, events: EventSettings, period_s: float) -> None:
        """period_s: seconds between two processed frames; frames in between repeat the last score."""
        self._method = method
        self._calibration = calibration
        self._scorer = Scorer(calibration)
        self._tracker = EventTracker(events)
        self._period_s = period_s
        self._last: Result | None = None
        self._due_s = -np.inf

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle,
        profile: str | Profile = "desktop_cpu",
        *,
        self_test: bool = True,
        backend: type[Backend] | None = None,
    ) -> Detector:
        """The detector of a bundle on the device of ``profile``; a path is read, verified and must be trusted there.

        self_test: compare the golden frames first, so that a wrong backend cannot score. backend: in the place of the
        profile's. Raises BundleError,
        ProfileError, BackendError or MissingPackageError.
        """
        if not isinstance(profile, Profile):
            profile = load_profile(profile)
        if not isinstance(bundle, Bundle):
            bundle = read_bundle(bundle, profile.trust.load())
        inference = profile.inference
        backend = backend or load_backend(inference)
        if bundle.method not in available("methods"):  # a bundle never names code of its own to import
            raise BundleFormatError(
                f"the bundle's method {bundle.method!r} is unknown{did_you_mean(bundle.method, available('methods'))}"
            )
        kind = load("methods", bundle.method, Method)
        method = kind.open(bundle, backend, threads=inference.threads, device=inference.device, bank=inference.bank)
        scoring = from_plain(Scoring, bundle.calibration, "calibration.json", BundleFormatError, ignore_unknown=True)
        calibration = scoring.calibration
        if method.components and set(method.components) != set(calibration.components):
            raise BundleFormatError(
                f"calibration.json: it calibrates {sorted(calibration.components)}, not {sorted(method.components)}"
            )
        if self_test:
            check_golden(bundle, method, calibration, scoring.events, inference.precision)
        return cls(method, calibration, scoring.events, scoring.period_s)

    def process(self, frame: Frame) -> Result:
        """Score the next frame. Frames come in order; SourceError when their size is not the bundle's."""
        return run_alone(self.steps(frame))

    def steps(self, frame: Frame) -> Steps[Result]:
        """`process` with a pause wherever pictures have to be encoded: see `edge_vad.batch.run_together`."""
        if self._last is not None and frame.timestamp < self._due_s:
            return self._between(frame)
        # Half a period of slack: time stamps jitter, and a frame that is a little early is still the one that is due.
        self._due_s = frame.timestamp + 0.75 * self._period_s
        observation = yield from self._method.steps(frame)
        recorder = spans.recorder
        if recorder is not None:
            recorder.begin()
        start = time.thread_time_ns()
        score, components = self._scorer.update(frame.timestamp, observation.components)
        regions = self._score_regions(observation)
        events: list[Event] = []
        if self._scorer.is_warm(frame.timestamp):
            events = self._tracker.update(frame.index, frame.timestamp, score, components, _above(regions))
        picture = self._map(frame, regions, observation)
        stage_ms = {**observation.stage_ms, "scoring": (time.thread_time_ns() - start) / 1e6}
        if recorder is not None:
            recorder.end("scoring")
        raw = observation.components
        self._last = Result(frame.index, frame.timestamp, score, components, regions, picture, tuple(events), stage_ms, raw)
        return self._last

    @property
    def budget_per_hour(self) -> float:
        """False alarms per hour of normal footage that the threshold was set for."""
        return self._calibration.tail.budget_per_hour

    @property
    def period_s(self) -> float:
        """Seconds between two processed frames."""
        return self._period_s

    @property
    def bank_kinds(self) -> dict[str, str]:
        """What searches each memory bank, by its name: ``exact``, ``hnsw`` or a plug-in."""
        return self._method.bank_kinds()

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each component in the sum that becomes the score."""
        return {name: component.weight for name, component in self._calibration.components.items()}

    def cold_start_frames(self, fps: float) -> int:
        """Frames at the start of a stream whose score rests on less than the full window."""
        return round(self._calibration.window_s * fps)

    def document(self, series: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64] | None:
        """See `Method.document`: the score that the method's source gives a whole video, which no stream can have."""
        return self._method.document(series)

    def finish(self) -> list[Event]:
        """End a running event: at the end of footage."""
        return self._tracker.finish()

    def reset(self) -> None:
        """Forget the past: before another clip, or after a gap in the stream."""
        self._method.reset()
        self._scorer.reset()
        self._tracker.reset()
        self._last = None

    def _between(self, frame: Frame) -> Result:
        """A frame that is not processed carries the last score."""
        last = self._last
        assert last is not None
        return replace(last, index=frame.index, timestamp=frame.timestamp, events=(), stage_ms={})

    def _map(self, frame: Frame, regions: tuple[Region, ...], observation: Observation) -> Float32:
        if observation.maps:
            return score_map(observation.maps, self._calibration)
        return anomaly_map(frame.image.shape[:2], regions)

    def _score_regions(self, observation: Observation) -> tuple[Region, ...]:
        """The regions with their scores, highest first: each as if it were alone in the frame."""
        if not observation.regions:
            return ()
        total = np.zeros(len(observation.regions))
        for name, raw in observation.region_components.items():
            known = raw > 0
            total[known] += self._calibration.standardise(name, raw[known])
        scores = self._calibration.score(total)
        order = np.argsort(-scores, kind="stable")
        rows = ((observation.regions[i], float(scores[i])) for i in order)
        return tuple(Region(r.x0, r.y0, r.x1, r.y1, r.confidence, r.age, score) for r, score in rows)


def _above(regions: tuple[Region, ...]) -> tuple[Region, ...]:
    """The regions that carry an event: those over the threshold, or the highest one where only their sum is."""
    return tuple(r for r in regions if r.score >= 1.0) or regions[:1]

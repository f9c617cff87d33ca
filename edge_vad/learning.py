"""What a unit sees where it hangs, learned without labels: a new bundle derived from the one that runs.

The bundle was built from footage of before. On site the unit watches for a while and keeps the features of what it sees;
their coreset joins the memory banks, which stay as large as they were, and the score is calibrated anew on the unit's own
normal footage, each stretch of it scored against a memory without its own rows (cross-fitting). The result is a bundle
like any other: self-tested, installed beside the old one, on trial, and taken back by ``edge-vad store rollback``.

The footage must be normal. Stretches in which the present bundle saw an event are left out unless they are asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

import edge_vad
from edge_vad import tensorfile
from edge_vad.backends.base import load_backend
from edge_vad.banks.base import open_bank
from edge_vad.banks.hnsw import search_graph
from edge_vad.batch import Steps
from edge_vad.bundle import Bundle, write_bundle
from edge_vad.calibration import Calibration, Scorer, calibrate
from edge_vad.coreset import coreset
from edge_vad.detector import Detector, Scoring
from edge_vad.drift import Drift
from edge_vad.errors import BundleFormatError, SourceError
from edge_vad.golden import golden_frames, golden_values
from edge_vad.manifest import CALIBRATION, GOLDEN, MANIFEST, SIGNATURE, bank_hashes, canonical_json, sha256
from edge_vad.memory import Part, memorise
from edge_vad.methods.base import Observation
from edge_vad.methods.videopatchcore import BankSearch, VideoPatchCore
from edge_vad.profile import Profile
from edge_vad.streams import FrameFeatures, Settings
from edge_vad.strict import from_plain, to_plain
from edge_vad.types import Float32, Frame, Result
from edge_vad.vectors import compress, expand

METHOD = "videopatchcore"
PART_S = 20.0  # a stretch for cross-fitting
MIN_PARTS = 3
MAX_PARTS = 24  # kept with all their features; of the others only the coreset is
ALARM_MARGIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Learned:
    """What came of it. parts, parts_left_out: stretches of normal view, and those with events. drift: component -> how
    far the site's mean lies from the footage's, in its standard deviations. alarm_part: of the scored frames that the old
    and the new bundle put over the threshold. rows: bank -> rows that are new, of all."""

    bundle: Bundle
    minutes: float
    parts: int
    parts_left_out: int
    drift: dict[str, float]
    alarm_part_before: float
    alarm_part_after: float
    rows: dict[str, tuple[int, int]]


class _Remembering(VideoPatchCore):
    """The method that runs, which also keeps the features of its last frame."""

    memorising = True
    features: FrameFeatures | None = None

    def steps(self, frame: Frame) -> Steps[Observation]:
        self.features = yield from self._extractor.steps(frame)
        return self._search(self.features)


class Learner:
    """Watches frames as the runtime does, and derives a bundle from them."""

    def __init__(self, bundle: Bundle, profile: Profile, *, include_events: bool = False) -> None:
        """Raises BundleFormatError when the bundle's method has no memory."""
        if bundle.method != METHOD:
            raise BundleFormatError(
                f"only bundles of {METHOD} learn on site, not of {bundle.method!r}: build a new one from footage"
            )
        inference = profile.inference
        backend = load_backend(inference)
        opened = _Remembering.open(bundle, backend, threads=inference.threads, device=inference.device, bank=inference.bank)
        self._method = cast(_Remembering, opened)
        self._bundle, self._include_events = bundle, include_events
        self._scoring = from_plain(Scoring, bundle.calibration, CALIBRATION, BundleFormatError, ignore_unknown=True)
        self._settings = from_plain(Settings, bundle.preprocessing, "preprocessing.json", BundleFormatError)
        self._detector = Detector(self._method, self._scoring.calibration, self._scoring.events, self._scoring.period_s)
        self._part = Part([], [])
        self._alarm_s = -np.inf
        self._part_alarmed = False
        self._parts: list[Part] = []
        self._coresets: list[dict[str, Float32]] = []
        self._origins: list[int | None] = []  # of each coreset: its part, where that is kept with all features
        self._drift = Drift(self._detector.weights, np.inf)
        self._n_scored = 0
        self._n_left_out = 0
        self._n_alarms = 0
        self._start_s: float | None = None
        self._end_s = 0.0

    @property
    def seconds(self) -> float:
        """Seconds watched, without gaps at either end."""
        return 0.0 if self._start_s is None else self._end_s - self._start_s

    def see(self, frame: Frame) -> Result:
        """Score a frame and keep what it shows."""
        self._method.features = None
        result = self._detector.process(frame)
        self._start_s = frame.timestamp if self._start_s is None else self._start_s
        self._end_s = frame.timestamp
        if self._method.features is None:  # between two processed frames
            return result
        self._n_scored += 1
        self._drift.update(frame.timestamp, result.components)
        self._n_alarms += result.score >= self._scoring.events.enter
        if result.score >= self._scoring.events.enter:
            self._alarm_s = frame.timestamp
        self._part_alarmed |= frame.timestamp - self._alarm_s < ALARM_MARGIN_S
        self._part.times.append(frame.timestamp)
        self._part.features.append(self._method.features)
        if frame.timestamp - self._part.times[0] >= PART_S:
            self._close_part()
        return result

    def gap(self) -> None:
        """The stream was interrupted: nothing before it says anything about what comes."""
        self._close_part()
        self._detector.reset()

    def derive(self, path: Path) -> Learned:
        """Write the derived bundle. Raises SourceError when too little normal footage was seen, and OutputError."""
        self._close_part()
        if len(self._parts) < MIN_PARTS:
            raise SourceError(
                f"{len(self._parts)} stretches of {PART_S:g} s without an event, {self._n_left_out} with one: too few to "
                f"learn from (at least {MIN_PARTS}); watch longer, or, if all of it was normal, use --include-events"
            )
        banks, origins = self._banks()
        calibration, after = self._calibrate(banks, origins)
        bundle = self._write(path, banks, calibration)
        return Learned(
            bundle=bundle,
            minutes=self.seconds / 60,
            parts=len(self._parts),
            parts_left_out=self._n_left_out,
            drift=self._drift.values(),
            alarm_part_before=self._n_alarms / max(self._n_scored, 1),
            alarm_part_after=after,
            rows={name: (int((origins[name] != -1).sum()), len(rows)) for name, rows in banks.items()},
        )

    # Steps

    def _close_part(self) -> None:
        part, alarmed = self._part, self._part_alarmed
        self._part, self._part_alarmed = Part([], []), False
        if len(part.times) < 2 or part.times[-1] - part.times[0] < PART_S / 2:
            return
        if alarmed and not self._include_events:
            self._n_left_out += 1
            return
        self._coresets.append(memorise(part, self._settings, self._bundle.manifest.footage.ratio))
        self._origins.append(len(self._parts))
        self._parts.append(part)
        if len(self._parts) > MAX_PARTS:
            self._thin()

    def _thin(self) -> None:
        """Keep the features of every second part: memory is bounded, and what is kept is spread over the whole time."""
        kept = range(0, len(self._parts), 2)
        places = {old: new for new, old in enumerate(kept)}
        self._parts = [self._parts[i] for i in kept]
        self._origins = [None if origin is None else places.get(origin) for origin in self._origins]

    def _banks(self) -> tuple[dict[str, Float32], dict[str, np.ndarray]]:
        """The new banks, as large as the old ones, and where each row came from: a coreset's number, or -1."""
        banks, origins = {}, {}
        for name in self._bundle.bank_names:
            old = self._bundle.rows(name)
            found = [(i, kept[name]) for i, kept in enumerate(self._coresets) if name in kept]
            rows = np.concatenate([old, *(new for _, new in found)])
            origin = np.concatenate([np.full(len(old), -1), *(np.full(len(new), i) for i, new in found)])
            chosen = np.sort(coreset(rows, len(old)))
            banks[name], origins[name] = self._stored(rows[chosen], name), origin[chosen]
        return banks, origins

    def _stored(self, rows: Float32, name: str) -> Float32:
        """Rows as a device reads them back."""
        return expand(compress(rows, self._bundle.manifest.banks[name].vectors))

    def _calibrate(self, banks: dict[str, Float32], origins: dict[str, np.ndarray]) -> tuple[Calibration, float]:
        """On the parts whose features were kept, each scored without its own rows; and the alarms that are left."""
        before = self._scoring.calibration
        footage = []
        for i, part in enumerate(self._parts):
            own = {coreset_number for coreset_number, origin in enumerate(self._origins) if origin == i}
            others = {name: rows[~np.isin(origins[name], list(own))] for name, rows in banks.items()}
            search = BankSearch(self._settings, {n: open_bank("exact", r) for n, r in others.items()})
            scored = [search(features).components for features in part.features]
            raw = {name: np.array([s[name] for s in scored], dtype=np.float64) for name in scored[0]}
            footage.append((np.array(part.times), raw))
        weights = {name: component.weight for name, component in before.components.items()}
        calibration = calibrate(footage, weights, before.window_s, before.tail.budget_per_hour)
        return calibration, _alarm_part(calibration, footage, self._scoring.events.enter)

    def _write(self, path: Path, banks: dict[str, Float32], calibration: Calibration) -> Bundle:
        manifest, old = self._bundle.manifest, self._bundle.members
        members = {name: data for name, data in old.items() if name not in (MANIFEST, SIGNATURE)}
        features = manifest.features
        for name, rows in banks.items():
            entry = manifest.banks[name]
            members[entry.file] = tensorfile.save(compress(rows, entry.vectors), {"features": features})
            if name in manifest.indexes:
                graph = search_graph(rows, {"bank": sha256(members[entry.file])}, name)
                del members[manifest.indexes[name].file]
                members |= {} if graph is None else {manifest.indexes[name].file: graph}
        bound = {"features": features, "banks": bank_hashes({n: members[b.file] for n, b in manifest.banks.items()})}
        scoring = dataclasses.replace(self._scoring, calibration=calibration)
        members[CALIBRATION] = canonical_json({**to_plain(scoring), **bound})
        golden = tensorfile.save(self._golden(banks, scoring), {**bound, "calibration": sha256(members[CALIBRATION])})
        members[GOLDEN] = golden
        return write_bundle(path, members, self._description(members))

    def _golden(self, banks: dict[str, Float32], scoring: Scoring) -> dict[str, np.ndarray]:
        """The same pictures, and what the new memory makes of them."""
        stored = self._bundle.golden()
        images, (width, height, period_s) = stored["images"], (float(v) for v in stored["frame"])
        method = self._method.with_banks({name: open_bank("exact", rows) for name, rows in banks.items()}, banks)
        frames = golden_frames(images, (int(width), int(height)), period_s)
        values = golden_values(method, scoring.calibration, scoring.events, frames)
        return {"images": images, "frame": stored["frame"], **values}

    def _description(self, members: Collection[str]) -> dict[str, Any]:
        manifest = to_plain(self._bundle.manifest)
        for made_anew in ("format", "schema", "features", "files"):
            del manifest[made_anew]
        manifest["indexes"] = {name: entry for name, entry in manifest["indexes"].items() if entry["file"] in members}
        footage = manifest["footage"]
        footage["clips"] += 1
        footage["frames_processed"] += self._n_scored
        return {**manifest, "derived_from": self._bundle.id, "written_by": f"edge-vad {edge_vad.__version__} learn"}


def _alarm_part(calibration: Calibration, footage: list[tuple[np.ndarray, dict[str, np.ndarray]]], enter: float) -> float:
    """Part of the frames at or over the threshold."""
    n_alarms = n_frames = 0
    for times, raw in footage:
        scorer = Scorer(calibration)
        for i, timestamp in enumerate(times):
            score, _ = scorer.update(float(timestamp), {name: float(values[i]) for name, values in raw.items()})
            n_frames += 1
            n_alarms += score >= enter and scorer.is_warm(float(timestamp))
    return n_alarms / max(n_frames, 1)

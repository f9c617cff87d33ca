"""Features of normal footage to memory banks, and the calibration of their distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from edge_vad.converters.coreset import coreset, n_kept
from edge_vad.converters.encoders import OnnxEncoder
from edge_vad.converters.normal_footage import processed
from edge_vad.converters.settings import BuildSettings

from edge_vad.backends.base import Backend
from edge_vad.banks.base import open_bank
from edge_vad.calibration import Calibration, calibrate
from edge_vad.features import Encoder
from edge_vad.footage import Clip
from edge_vad.methods.videopatchcore import BankSearch
from edge_vad.object_detector import ObjectDetector, ObjectSettings
from edge_vad.plugins import load
from edge_vad.progress import progress
from edge_vad.streams import MEMORISED, OBJECT_PREFIX, Extractor, FrameFeatures, Settings
from edge_vad.types import Float32
from edge_vad.vectors import compress, expand

MIN_PARTS = 8  # cross-fitting wants this many parts; fewer clips are cut into pieces
MIN_PART_FRAMES = 40


@dataclass(slots=True)
class Part:
    """A stretch of normal footage for cross-fitting: timestamps and features of its processed frames."""

    times: list[float]
    features: list[FrameFeatures]


def extract(
    clips: Sequence[Clip],
    scene: Settings,
    encoder: OnnxEncoder,
    detector: tuple[bytes, ObjectSettings] | None,
    fps: float | None,
) -> list[Part]:
    """Features of all clips by the runtime's own code, in parts for cross-fitting."""
    backend = load("backends", "onnxruntime", Backend)
    objects = ObjectDetector(backend(detector[0], threads=2), detector[1]) if detector else None
    extractor = Extractor(scene, Encoder(backend(encoder.model, threads=2), scene.preprocessing), objects, memorise=True)
    n_cuts = max(1, -(-MIN_PARTS // len(clips)))
    parts: list[Part] = []
    for clip in progress(clips, "features", len(clips)):
        extractor.reset()
        rows = [(frame.timestamp, extractor(frame)) for frame in processed(clip, scene, fps)]
        cuts = max(1, min(n_cuts, len(rows) * scene.stride // MIN_PART_FRAMES))
        for piece in np.array_split(np.arange(len(rows)), cuts):
            parts.append(Part([rows[i][0] for i in piece], [rows[i][1] for i in piece]))
    return parts


def part_rows(part: Part, name: str) -> list[Float32]:
    """Rows of one bank in a part, as they are memorised."""
    if name == "highlevel":
        return [f.highlevel[None] for f in part.features if f.highlevel is not None]
    prefix = OBJECT_PREFIX if name.startswith(OBJECT_PREFIX) else ""
    kind = name.removeprefix(prefix)
    found = []
    for features in part.features:
        local = features.local[prefix]
        rows = local.rows.get(MEMORISED + kind, local.rows.get(kind))
        if rows is None or not local.known:
            continue
        if kind == "temporal":
            rows = rows[local.continued]
        found.append(rows.reshape(-1, rows.shape[2]))
    return found


def memorise(part: Part, scene: Settings, ratio: float) -> dict[str, Float32]:
    """The coreset of every bank of one part; a bank that nothing fell into is left out."""
    kept = {}
    for name in scene.banks:
        rows = part_rows(part, name)
        if rows and sum(len(r) for r in rows):
            all_rows = np.concatenate(rows)
            kept[name] = all_rows[coreset(all_rows, n_kept(len(all_rows), ratio))]
    return kept


def cross_fit(
    parts: Sequence[Part], coresets: Sequence[Mapping[str, Float32]], scene: Settings, settings: BuildSettings
) -> Calibration:
    """Calibrate on every part, scored against the memory of the others."""
    names = scene.banks
    footage = []
    for i, part in enumerate(progress(parts, "calibrate", len(parts))):
        others = {n: np.concatenate([c[n] for j, c in enumerate(coresets) if n in c and (j != i or len(parts) == 1)] or
                                    [c[n] for c in coresets if n in c]) for n in names}  # fmt: skip
        stored = {n: expand(compress(rows, settings.vectors)) for n, rows in others.items()}
        search = BankSearch(scene, {n: open_bank("exact", rows) for n, rows in stored.items()})
        scored = [search(features).components for features in part.features]
        raw = {name: np.array([s[name] for s in scored], dtype=np.float64) for name in scored[0]}
        footage.append((np.array(part.times), raw))
    weights = {name: settings.weight(name) for name in scene.components}
    return calibrate(footage, weights, settings.window_s, settings.budget_per_hour)

"""Features of normal footage, and the calibration of their distances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from edge_vad.converters.encoders import OnnxEncoder
from edge_vad.converters.normal_footage import processed
from edge_vad.converters.settings import BuildSettings

from edge_vad.backends.base import Backend
from edge_vad.banks.base import open_bank
from edge_vad.calibration import Calibration, calibrate
from edge_vad.features import Encoder
from edge_vad.footage import Clip
from edge_vad.memory import Part
from edge_vad.methods.videopatchcore import BankSearch
from edge_vad.object_detector import ObjectDetector, ObjectSettings
from edge_vad.plugins import load
from edge_vad.progress import progress
from edge_vad.streams import Extractor, Settings
from edge_vad.types import Float32
from edge_vad.vectors import compress, expand

MIN_PARTS = 8  # cross-fitting wants this many parts; fewer clips are cut into pieces
MIN_PART_FRAMES = 40


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

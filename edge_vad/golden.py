"""The golden self-test: frames in the bundle and what a healthy installation computes from them.

Hashes find a damaged file; this finds the other thing: a wrong backend, a broken integer kernel, swapped colours. It
starts from raw pixels and compares every step that has a number: embeddings, distances, components, scores, decisions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_vad.bundle import Bundle
from edge_vad.calibration import Calibration, Scorer
from edge_vad.errors import SelfTestError
from edge_vad.events import EventSettings
from edge_vad.methods.base import Method
from edge_vad.sampling import resize
from edge_vad.types import Frame, UInt8


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest allowed difference. embedding: length of the difference, relative; value: of a distance, relative;
    score: absolute, and relative above 1."""

    embedding: float
    value: float
    score: float


# By the precision of the networks: integer kernels round differently between processors and backends.
TOLERANCES = {
    "fp32": Tolerance(0.01, 0.02, 0.03),
    "fp16": Tolerance(0.02, 0.05, 0.08),
    "int8": Tolerance(0.10, 0.15, 0.25),
}


def golden_frames(images: UInt8, size: tuple[int, int], period_s: float) -> list[Frame]:
    """Frames of ``size`` (width, height) from small stored images (n, h, w, 3) uint8, ``period_s`` seconds apart.

    They are enlarged, so that a few kilobytes cover the whole path from full-size pixels.
    """
    weights = np.array([77, 150, 29], dtype=np.uint32)
    frames = []
    for index, small in enumerate(images):
        image = resize(small, *size)
        luma = ((image.astype(np.uint32) @ weights) >> 8).astype(np.uint8)
        frames.append(Frame(image, luma, index * period_s, index))
    return frames


def golden_values(
    method: Method, calibration: Calibration, events: EventSettings, frames: list[Frame]
) -> dict[str, np.ndarray]:
    """Everything that is compared: what `Method.golden` gives, ``scores`` (n,) float32 and ``decisions`` (n,) uint8."""
    values = method.golden(frames)
    scorer = Scorer(calibration)
    names = sorted(calibration.components)
    rows = zip(frames, values["components"], strict=True)
    scores = [scorer.update(f.timestamp, dict(zip(names, map(float, row), strict=True)))[0] for f, row in rows]
    values["scores"] = np.array(scores, dtype=np.float32)
    values["decisions"] = (values["scores"] >= events.enter).astype(np.uint8)
    return values


def check_golden(bundle: Bundle, method: Method, calibration: Calibration, events: EventSettings) -> None:
    """Run the golden frames; SelfTestError names the first step whose values are off by more than the tolerance."""
    stored = bundle.golden()
    try:
        images = stored.pop("images")
        width, height, period_s = (float(v) for v in stored.pop("frame"))
        frames = golden_frames(images, (int(width), int(height)), period_s)
        computed = golden_values(method, calibration, events, frames)
    except (KeyError, ValueError) as error:
        raise SelfTestError(
            f"golden self-test: its frames do not fit the bundle: {error}; build the bundle again"
        ) from error
    precisions = [model.precision for model in bundle.manifest.models.values()]
    tolerance = max((TOLERANCES[p] for p in precisions), key=lambda t: t.score, default=TOLERANCES["fp32"])
    if missing := sorted(set(computed) - set(stored)):
        raise SelfTestError(f"golden self-test: no {missing[0]} to compare with; build the bundle again")
    for name in sorted(stored, key=_depth):
        _compare(name, stored[name], computed.get(name), tolerance)
    clear = np.abs(stored["scores"] - events.enter) > tolerance.score * np.maximum(np.abs(stored["scores"]), 1)
    if not np.array_equal(stored["decisions"][clear], computed["decisions"][clear]):
        raise SelfTestError(f"golden self-test: another decision; {_ADVICE}")


def _depth(name: str) -> tuple[int, str]:
    """Embeddings before distances before scores: the first step that is wrong is the one to name."""
    steps = ("embedding", "distances", "components", "scores", "decisions")
    return next((i for i, step in enumerate(steps) if name.startswith(step)), 0), name


def _compare(name: str, expected: np.ndarray, found: np.ndarray | None, tolerance: Tolerance) -> None:
    if found is None or found.shape != expected.shape:
        raise SelfTestError(f"golden self-test: {name} are missing or of another shape; build the bundle again")
    if name == "decisions":
        return  # a score on the edge may fall on either side: compared where it is clear
    unknown = np.isnan(expected)
    if not np.array_equal(unknown, np.isnan(found)):
        raise SelfTestError(f"golden self-test: {name} are known for other frames; {_ADVICE}")
    expected, found = (np.where(unknown, 0, v).astype(np.float64) for v in (expected, found))
    if name.startswith("embedding"):
        length = np.linalg.norm(expected, axis=1)
        error, allowed = np.linalg.norm(found - expected, axis=1) / (length + 1e-3), tolerance.embedding
    elif name == "scores":
        error, allowed = np.abs(found - expected) / np.maximum(np.abs(expected), 1), tolerance.score
    else:
        error, allowed = np.abs(found - expected) / (np.abs(expected) + 1e-3), tolerance.value
    if not np.all(error <= allowed):
        raise SelfTestError(f"golden self-test: {name} differ by {np.max(error):.0%} (allowed {allowed:.0%}); {_ADVICE}")


_ADVICE = "this installation computes something else than the one that built the bundle: try another backend"

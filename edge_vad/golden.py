"""The golden self-test: frames in the bundle and what a healthy installation computes from them.

Hashes find a damaged file; this finds the other thing: a wrong backend, a broken integer kernel, swapped colours. It
starts from raw pixels and compares every step that has a number: settings and banks as they were read, regions,
embeddings, distances, components, scores, decisions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_vad.bundle import Bundle
from edge_vad.calibration import Calibration, Scorer
from edge_vad.errors import SelfTestError
from edge_vad.events import EventSettings
from edge_vad.methods.base import Method
from edge_vad.sampling import resize
from edge_vad.strict import numbers, to_plain
from edge_vad.types import Frame, UInt8


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest allowed difference. embedding: length of the difference, relative; value: of a distance or component,
    relative; score: absolute, and relative above 1."""

    embedding: float
    value: float
    score: float

    def of(self, step: str) -> float:
        """The largest `deviation` of a step."""
        steps = {"settings": EXACT_SUMS, "bank": EXACT_SUMS, "embedding": self.embedding, "scores": self.score}
        return steps.get(step, self.value)


# By the precision of the networks, three times what was measured (tests/test_golden.py). fp32: weights rounded as tensor
# cores round them (TF32); two CPU runtimes are 1000 times closer. fp16: also of what is computed in it. int8: OpenVINO
# against ONNX Runtime, whose integer kernels round differently.
TOLERANCES = {
    "fp32": Tolerance(0.01, 0.005, 0.01),
    "fp16": Tolerance(0.02, 0.02, 0.02),
    "int8": Tolerance(0.10, 0.05, 0.05),
}
# Where no network takes part: rounding errors.
EXACT = Tolerance(0.001, 0.005, 0.01)
EXACT_SUMS = 1e-6  # of banks and settings as they were read
SMALL, SMALLEST = 0.1, 0.005  # values far below the largest of their column are compared with this part of it, or this
# In the order of the computation. A bundle of another minor version may know fewer or more of them: compared are those
# that both know.
STEPS = ("settings", "bank", "regions", "embedding", "distances", "components", "scores", "decisions")
ALWAYS = ("components", "scores", "decisions")
MAX_FRAMES = 64
MAX_PIXELS = 2**25  # of one frame


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
    """Everything that is compared, by ``STEP.NAME``: what `Method.golden` gives with one array per component, ``scores``
    (n,) float32 and ``decisions`` (n,) uint8."""
    values = {**_as_read(method, to_plain(calibration)), **method.golden(frames)}
    rows = values.pop("components")
    scorer = Scorer(calibration)
    names = sorted(calibration.components)
    scores = [
        scorer.update(frame.timestamp, dict(zip(names, map(float, row), strict=True)))[0]
        for frame, row in zip(frames, rows, strict=True)
    ]
    values |= {f"components.{name}": rows[:, i] for i, name in enumerate(names)}
    values["scores"] = np.array(scores, dtype=np.float32)
    values["decisions"] = (values["scores"] >= events.enter).astype(np.uint8)
    return values


def _as_read(method: Method, calibration: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {**method.as_read(), "settings.scoring": np.array(numbers(calibration))}


def check_golden(
    bundle: Bundle, method: Method, calibration: Calibration, events: EventSettings, precision: str = "fp32"
) -> None:
    """Run the golden frames; SelfTestError names the first step whose values are off by more than the tolerance.

    precision: fp32 or fp16, in which the backend was asked to compute what is not INT8.
    """
    stored = bundle.golden()
    frames = _stored_frames(stored, method, bundle.calibration["period_s"])
    tolerance = tolerance_of(bundle, precision)
    steps = {_step(name) for name in stored}.intersection(STEPS).union(ALWAYS)
    as_read = _as_read(method, bundle.calibration["calibration"])
    for name, values in as_read.items():
        if _step(name) in steps:
            _compare(name, stored.get(name), values, tolerance)
    try:
        computed = {**golden_values(method, calibration, events, frames), **as_read}
    except ValueError as error:  # widths and sizes that do not belong together
        raise _failed(f"its frames do not fit the bundle: {error}", REBUILD) from error
    for name in sorted((n for n in stored.keys() | computed.keys() if _step(n) in steps), key=_depth):
        exact = name.partition(".")[2] in method.without_network
        _compare(name, stored.get(name), computed.get(name), EXACT if exact else tolerance)
    expected, decided = stored["scores"], stored["decisions"]
    clear = np.abs(expected - events.enter) > tolerance.score * np.maximum(np.abs(expected), 1)
    if not np.array_equal(decided, expected >= events.enter) or np.any(decided[clear] != computed["decisions"][clear]):
        raise _failed("decisions differ", ADVICE)


def tolerance_of(bundle: Bundle, precision: str = "fp32") -> Tolerance:
    """What a network of the lowest precision in the bundle may be off by, or one that is computed in ``precision``."""
    precisions = [model.precision for model in bundle.manifest.models.values()]
    return max((TOLERANCES[p] for p in (*precisions, precision)), key=lambda t: t.score) if precisions else EXACT


def _stored_frames(stored: dict[str, np.ndarray], method: Method, period_s: float) -> list[Frame]:
    """Take the golden frames out of what is stored; SelfTestError where they are none or not the bundle's."""
    images, frame = stored.pop("images", None), stored.pop("frame", None)
    if images is None or images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3 or min(images.shape) < 2:
        raise _failed("no frames", REBUILD)
    if frame is None or frame.shape != (3,) or frame.dtype != np.float64 or len(images) > MAX_FRAMES:
        raise _failed("no size of its frames, or too many of them", REBUILD)
    width, height, period = frame.tolist()
    if (width, height) != (method.image_size or (width, height)) or not 1 <= width * height <= MAX_PIXELS:
        raise _failed(f"its frames of {width:g}x{height:g} pixels are not the bundle's", REBUILD)
    if period != period_s:
        raise _failed(f"its frames are {period:g} s apart, calibration.json says {period_s:g}", REBUILD)
    return golden_frames(images, (int(width), int(height)), period)


def _depth(name: str) -> tuple[int, str]:
    """What was read comes before what is computed from it: the first step that is wrong is the one to name."""
    return STEPS.index(_step(name)), name


def _step(name: str) -> str:
    return name.partition(".")[0]


def _compare(name: str, expected: np.ndarray | None, found: np.ndarray | None, tolerance: Tolerance) -> None:
    if expected is None or found is None:
        raise _failed(f"{name} is {'missing' if expected is None else 'unknown'}", REBUILD)
    if found.shape != expected.shape or found.dtype != expected.dtype or np.isinf(expected).any():
        raise _failed(f"{name} has another shape or type", REBUILD)
    if not np.array_equal(np.isnan(expected), np.isnan(found)):
        raise _failed(f"{name} is known for other frames", ADVICE)
    if _step(name) == "decisions":
        return  # a score on the edge may fall on either side: compared where it is clear
    allowed = tolerance.of(_step(name))
    error = deviation(name, expected, found)
    if not error <= allowed:
        raise _failed(f"{name} differs by {error:.2g} (allowed: {allowed:g})", ADVICE)


def deviation(name: str, expected: np.ndarray, found: np.ndarray) -> float:
    """The largest difference between two arrays of the step ``name``, in the unit of its tolerance; NaN counts as 0."""
    expected, found = (np.where(np.isnan(v), 0, v).astype(np.float64) for v in (expected, found))
    step, difference = _step(name), np.abs(found - expected)
    if step == "settings":
        error = difference / np.maximum(np.abs(expected), EXACT_SUMS)
    elif step == "bank":
        error = difference / np.maximum(expected[1], 1e-9)
    elif step == "embedding":
        error = np.linalg.norm(difference, axis=1) / (np.linalg.norm(expected, axis=1) + 1e-3)
    elif step == "scores":
        error = difference / np.maximum(np.abs(expected), 1)
    else:
        size = np.abs(expected)
        error = difference / np.maximum(np.maximum(size, SMALL * size.max(axis=0, initial=0)), SMALLEST)
    return float(np.max(error, initial=0))


def _failed(what: str, advice: str) -> SelfTestError:
    return SelfTestError(f"golden self-test: {what}; {advice}")


REBUILD = "build the bundle again"
ADVICE = (
    "this installation computes something else than the one that built the bundle: try another backend, "
    "or another precision (docs/precision.md)"
)

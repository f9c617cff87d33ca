"""Faults of an installation that hashes cannot find, each with the step of the self-test that must name it first.

Measure what two healthy installations differ by, in the unit of each tolerance:

    python tests/golden_faults.py SITE.evb [BACKEND]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge_vad import calibration, features, golden, motion, streams, tensorfile
from edge_vad.backends.base import Backend
from edge_vad.backends.onnxruntime import OnnxRuntime
from edge_vad.banks.exact import ExactBank
from edge_vad.bundle import Bundle, read_bundle
from edge_vad.detector import Scoring
from edge_vad.errors import BundleFormatError
from edge_vad.manifest import CALIBRATION, GOLDEN, PREPROCESSING, canonical_json
from edge_vad.methods.base import Method
from edge_vad.perspective import Perspective
from edge_vad.plugins import load
from edge_vad.strict import from_plain
from edge_vad.types import Float32, Frame, UInt8
from edge_vad.vectors import Stored, compress

Patch = pytest.MonkeyPatch


@dataclass(frozen=True)
class Fault:
    """What is wrong; the step that is named first (a regular expression); and what brings it about: it patches the
    installation or returns a bundle with another content."""

    name: str
    step: str
    make: Callable[[Bundle, Patch], Bundle]


def method_of(bundle: Bundle, backend: str = "onnxruntime", threads: int = 1, bank: str = "exact") -> Method:
    kind = load("backends", backend, Backend)
    return load("methods", bundle.method, Method).open(bundle, kind, threads=threads, device="cpu", bank=bank)


def scoring_of(bundle: Bundle) -> Scoring:
    return from_plain(Scoring, bundle.calibration, CALIBRATION, BundleFormatError, ignore_unknown=True)


def computed(bundle: Bundle, *installation: Any) -> dict[str, np.ndarray]:
    """What an installation (backend, threads, bank) computes from the golden frames."""
    stored, scoring = bundle.golden(), scoring_of(bundle)
    width, height, period_s = stored["frame"].tolist()
    frames = golden.golden_frames(stored["images"], (int(width), int(height)), period_s)
    return golden.golden_values(method_of(bundle, *installation), scoring.calibration, scoring.events, frames)


def deviations(bundle: Bundle, *installation: Any) -> dict[str, float]:
    """How far an installation is from what the bundle says, by array, in the unit of its tolerance."""
    stored = bundle.golden()
    found = computed(bundle, *installation)
    return {name: golden.deviation(name, stored[name], found[name]) for name in found if name != "decisions"}


def with_members(bundle: Bundle, members: dict[str, bytes]) -> Bundle:
    return replace(bundle, members={**bundle.members, **members})


def with_preprocessing(bundle: Bundle, part: str | None, **changes: Any) -> Bundle:
    plain = bundle.preprocessing
    (plain[part] if part else plain).update(changes)
    return with_members(bundle, {PREPROCESSING: canonical_json(plain)})


def with_calibration(bundle: Bundle, change: Callable[[dict[str, Any]], object]) -> Bundle:
    plain = bundle.calibration
    change(plain)
    return with_members(bundle, {CALIBRATION: canonical_json(plain)})


def with_rows(bundle: Bundle, bank: str, change: Callable[[Float32], Float32]) -> Bundle:
    file = bundle.manifest.banks[bank].file
    rows = change(bundle.rows(bank)).astype(np.float16)
    return with_members(bundle, {file: tensorfile.save({"rows": rows}, {})})


def with_int8_rows(bundle: Bundle) -> Bundle:
    """The bundle as if it had been built with ``vectors: int8``."""
    files = {entry.file: bundle.rows(name) for name, entry in bundle.manifest.banks.items()}
    changed = with_members(bundle, {f: tensorfile.save(compress(rows, "int8"), {}) for f, rows in files.items()})
    arrays = {**bundle.golden(), **computed(changed)}
    return with_members(changed, {GOLDEN: tensorfile.save(arrays, {})})


def other_weights(bundle: Bundle) -> bytes:
    """An encoder with the weights of this one in another order."""
    model = onnx.load_model_from_string(bundle.model("encoder"))
    generator = np.random.default_rng(9)
    for tensor in model.graph.initializer:
        weights = numpy_helper.to_array(tensor)
        if weights.ndim == 4:
            shuffled = generator.permutation(weights.reshape(-1)).reshape(weights.shape)
            tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
    return bytes(model.SerializeToString())


def shuffled_rows(rows: Float32) -> Float32:
    """Rows of the same columns that no frame ever had."""
    return np.random.default_rng(0).permuted(rows, axis=0)


def lost_rows(rows: Float32) -> Float32:
    return np.where(np.arange(len(rows))[:, None] % 2, rows, rows[:1])


def exchanged_rows(rows: Float32) -> Float32:
    changed = rows.copy()
    changed[:2, 0] = rows[1::-1, 0]
    return changed


def frames_changed(change: Callable[[Frame], Frame]) -> Callable[[Bundle, Patch], Bundle]:
    """A camera that delivers other frames."""
    extract = streams.Extractor.__call__

    def make(bundle: Bundle, patch: Patch) -> Bundle:
        patch.setattr(streams.Extractor, "__call__", lambda self, frame: extract(self, change(frame)))
        return bundle

    return make


def outputs_changed(change: Callable[[Float32], Float32]) -> Callable[[Bundle, Patch], Bundle]:
    """A backend with a broken kernel."""
    run = OnnxRuntime.run

    def make(bundle: Bundle, patch: Patch) -> Bundle:
        patch.setattr(OnnxRuntime, "run", lambda self, inputs: {name: change(v) for name, v in run(self, inputs).items()})
        return bundle

    return make


def replaced(owner: Any, name: str, other: Any) -> Callable[[Bundle, Patch], Bundle]:
    """A function that does something else."""

    def make(bundle: Bundle, patch: Patch) -> Bundle:
        patch.setattr(owner, name, other)
        return bundle

    return make


def swapped(frame: Frame) -> Frame:
    return replace(frame, image=np.ascontiguousarray(frame.image[..., ::-1]))


def blue_luma(frame: Frame) -> Frame:
    """Luma with the weights of BGR."""
    luma = (frame.image.astype(np.uint32) @ np.array([29, 150, 77], np.uint32)) >> 8
    return replace(frame, luma=luma.astype(np.uint8))


def nearest(image: UInt8, boxes: Float32, width: int, height: int) -> UInt8:
    """Crops without interpolation."""

    def positions(start: Float32, end: Float32, n: int, limit: int) -> np.ndarray:
        at = start[:, None] + (end - start)[:, None] / n * (np.arange(n) + 0.5)
        return np.clip(np.floor(at), 0, limit - 1).astype(np.intp)

    x = positions(boxes[:, 0], boxes[:, 2], width, image.shape[1])
    y = positions(boxes[:, 1], boxes[:, 3], height, image.shape[0])
    return image[y[:, :, None], x[:, None, :]]


def one_sample_off(image: UInt8, boxes: Float32, width: int, height: int) -> UInt8:
    step = (boxes[:, 2:] - boxes[:, :2]) / np.array([width, height], np.float32)
    return CROPS(image, boxes + np.tile(step, 2), width, height)


CROPS, SQUARES = streams.crops, streams.squares


def no_pooling(size: int, target: int) -> Float32:
    """Every (size / target)-th cell, as it is."""
    chosen = np.zeros((size, target), np.float32)
    chosen[(np.arange(target) * 2 + 1) * size // (2 * target), np.arange(target)] = 1
    return chosen


def means_only(size: int, target: int) -> Float32:
    """Means of size / target cells, without the 3-wide pooling before."""
    return np.repeat(np.eye(target, dtype=np.float32), size // target, axis=0) * np.float32(target / size)


def largest_patches(maps: Float32, kernel: int, margin: int = 0) -> Float32:
    """Maxima in the place of means."""
    inner = maps[:, :, margin : maps.shape[2] - margin]
    rows, columns = inner.shape[1] - kernel + 1, inner.shape[2] - kernel + 1
    patches = [inner[:, r : r + kernel, c : c + kernel].max(axis=(1, 2)) for r in range(rows) for c in range(columns)]
    return np.stack(patches, axis=1)


def saturated(values: Float32) -> Float32:
    """A sum of products that stops at a quarter of what it should reach."""
    return np.minimum(values, values.max() / 4)


def wrapped(values: Float32) -> Float32:
    """A sum of products that begins again behind three quarters of what it should reach."""
    return np.mod(values, values.max() * np.float32(0.75))


def without_channels(values: Float32) -> Float32:
    return np.where(np.arange(values.shape[1])[:, None, None] < max(1, values.shape[1] // 16), np.float32(0), values)


def zero_point_off(values: Float32) -> Float32:
    return values + np.float32(values.std() / 4)


def second_neighbours(self: ExactBank, queries: Float32, k: int = 1) -> tuple[Float32, np.ndarray]:
    distances, rows = SEARCH(self, queries, k + 1)
    return distances[:, 1:], rows[:, 1:]


def squared_distances(self: ExactBank, queries: Float32, k: int = 1) -> tuple[Float32, np.ndarray]:
    distances, rows = SEARCH(self, queries, k)
    return distances**2, rows


SEARCH = ExactBank.search


def codes_as_rows(arrays: dict[str, np.ndarray]) -> Float32:
    return arrays["rows"].astype(np.float32) + arrays["offset"]


def codes_unsigned(arrays: dict[str, np.ndarray]) -> Float32:
    return arrays["rows"].view(np.uint8).astype(np.float32) * arrays["scale"] + arrays["offset"]


def int8_rows_read(read: Callable[[dict[str, np.ndarray]], Float32]) -> Callable[[Bundle, Patch], Bundle]:
    def make(bundle: Bundle, patch: Patch) -> Bundle:
        changed = with_int8_rows(bundle)
        patch.setattr(Stored, "__getitem__", lambda rows, chosen: read({**rows._arrays, "rows": rows._codes[chosen]}))
        return changed

    return make


def scaled(*path: str, by: float) -> Callable[[Bundle, Patch], Bundle]:
    """A number in calibration.json, multiplied."""

    def change(plain: dict[str, Any]) -> None:
        for key in path[:-1]:
            plain = plain[key]
        plain[path[-1]] *= by

    return lambda bundle, _: with_calibration(bundle, change)


def setting(part: str | None, name: str, by: Callable[[Any], Any]) -> Callable[[Bundle, Patch], Bundle]:
    """A value in preprocessing.json, changed."""

    def make(bundle: Bundle, _: Patch) -> Bundle:
        plain = bundle.preprocessing
        return with_preprocessing(bundle, part, **{name: by((plain[part] if part else plain)[name])})

    return make


def made_with(kind: type, position: int, change: Callable[[Any], Any]) -> Callable[[Bundle, Patch], Bundle]:
    """An object that takes its settings, and then uses others."""
    init = kind.__init__  # type: ignore[misc]

    def other(self: Any, *arguments: Any) -> None:
        changed = list(arguments)
        changed[position] = change(changed[position])
        init(self, *changed)

    return replaced(kind, "__init__", other)


def result_changed(owner: Any, name: str, change: Callable[[Any], Any]) -> Callable[[Bundle, Patch], Bundle]:
    """A function whose result is another one."""
    right = getattr(owner, name)
    return replaced(owner, name, lambda *arguments, **named: change(right(*arguments, **named)))


def pixels(**changes: Callable[[float], float]) -> Callable[[Bundle, Patch], Bundle]:
    """An encoder that is fed with another mean or scale."""
    return made_with(
        features.Encoder,
        1,
        lambda found: replace(found, **{name: tuple(map(by, getattr(found, name))) for name, by in changes.items()}),
    )


NETWORK = r"embedding\.(spatial|temporal)"
WEIGHT = ("calibration", "components", "spatial", "weight")

FAULTS = [
    # What goes in.
    Fault("the colours of the frames are swapped", r"embedding\.spatial", frames_changed(swapped)),
    Fault("luma has the weights of swapped colours", r"embedding\.(temporal|velocity)", frames_changed(blue_luma)),
    Fault("colours enter the encoder in another order", r"embedding\.spatial",
          setting("preprocessing", "colour_order", lambda _: "BGR")),
    Fault("another mean", r"embedding\.spatial", pixels(mean=lambda v: v + 80)),
    Fault("no mean", r"embedding\.spatial", pixels(mean=lambda _: 0.0)),
    Fault("another scale", rf"{NETWORK}|components\.temporal", pixels(std=lambda v: v * 1.3)),
    Fault("no scale", NETWORK, pixels(std=lambda _: 1.0)),
    Fault("crops without interpolation", r"embedding\.spatial", replaced(streams, "crops", nearest)),
    Fault("crops one sample off", NETWORK, replaced(streams, "crops", one_sample_off)),
    Fault("larger crops", r"embedding\.spatial",
          replaced(streams, "squares", lambda boxes, enlarge: SQUARES(boxes, enlarge * 1.25))),
    # Which regions there are, and how they move.
    Fault("another motion threshold", r"regions\.motion",
          made_with(motion.RgbDifference, 0, lambda found: replace(found, threshold=found.threshold + 4))),
    Fault("another lag", r"regions\.motion",
          made_with(motion.RgbDifference, 0, lambda found: replace(found, lag_s=2 * found.lag_s))),
    Fault("regions too small", r"regions\.motion", result_changed(Perspective, "height", lambda height: height * 0.9)),
    Fault("speeds upside down", r"embedding\.(temporal|velocity)",
          result_changed(streams, "velocities", lambda found: found * np.array([1, -1], np.float32))),
    Fault("speeds too large", r"embedding\.(temporal|velocity)", result_changed(streams, "velocities", lambda v: v * 1.05)),
    Fault("no tracks", r"embedding\.temporal", result_changed(streams, "link", lambda found: np.full_like(found, -1))),
    # The network.
    Fault("another encoder of the same shape", r"embedding\.spatial",
          lambda b, _: with_members(b, {"encoder/encoder.onnx": other_weights(b)})),
    Fault("taps in another order", r"embedding\.spatial", setting("preprocessing", "taps", lambda v: v[::-1])),
    Fault("a kernel that saturates", NETWORK, outputs_changed(saturated)),
    Fault("a kernel that wraps around", NETWORK, outputs_changed(wrapped)),
    Fault("a kernel that leaves out channels", NETWORK, outputs_changed(without_channels)),
    Fault("a kernel with a wrong zero point", NETWORK, outputs_changed(zero_point_off)),
    # What is made of its output.
    Fault("no pooling", r"embedding\.spatial", replaced(features, "average_pooling", no_pooling)),
    Fault("half of the pooling", r"embedding\.spatial", replaced(features, "average_pooling", means_only)),
    Fault("maxima in the place of means", r"embedding\.spatial", replaced(streams, "spatial_patches", largest_patches)),
    Fault("another pooling over space", r"embedding\.temporal", setting("local", "pooling_infer", lambda _: "maximum")),
    Fault("another pooling over time", r"embedding\.spatial", setting("local", "temporal_pooling", lambda _: "average")),
    # The banks and the search.
    Fault("columns of a bank in another order", r"bank\.spatial",
          lambda b, _: with_rows(b, "spatial", lambda rows: np.roll(rows, 1, axis=1))),
    Fault("a bank of other rows", r"bank\.spatial", lambda b, _: with_rows(b, "spatial", shuffled_rows)),
    Fault("half of a bank is lost", r"bank\.temporal", lambda b, _: with_rows(b, "temporal", lost_rows)),
    Fault("two values of a bank exchanged", r"bank\.velocity", lambda b, _: with_rows(b, "velocity", exchanged_rows)),
    Fault("INT8 rows without their scale", r"bank\.spatial", int8_rows_read(codes_as_rows)),
    Fault("INT8 rows without their sign", r"bank\.spatial", int8_rows_read(codes_unsigned)),
    Fault("the second neighbours", r"(distances|components)\.spatial", replaced(ExactBank, "search", second_neighbours)),
    Fault("squared distances", r"distances\.spatial", replaced(ExactBank, "search", squared_distances)),
    # The score and the decision.
    Fault("scores of one frame, not of a window", "scores",
          made_with(calibration.Scorer, 0, lambda found: replace(found, window_s=0.01))),
    Fault("another floor", "scores", replaced(calibration, "FLOOR", -0.5)),
    Fault("common logarithms", "scores", result_changed(calibration.Calibration, "standardise", lambda z: z / np.log(10))),
    Fault("another threshold", "scores", result_changed(calibration.Calibration, "score", lambda score: score * 1.1)),
    Fault("another enter level", "decisions", scaled("events", "enter", by=0.4)),
    Fault("a higher enter level", "decisions", scaled("events", "enter", by=1.6)),
    # Numbers that were read wrongly.
    Fault("another mean in the settings", r"settings\.features",
          setting("preprocessing", "mean", lambda mean: [v + 1 for v in mean])),
    Fault("a fraction that no golden frame comes near", r"settings\.features",
          setting("motion", "min_fraction", lambda v: v * 1.01)),
    Fault("another weight", r"settings\.scoring", scaled(*WEIGHT, by=0.8)),
    Fault("other statistics", r"settings\.scoring", scaled("calibration", "components", "spatial", "mean", by=1.1)),
    Fault("another window", r"settings\.scoring", scaled("calibration", "window_s", by=0.5)),
    Fault("another period", r"its frames are 0\.2 s apart, calibration\.json says 0\.3", scaled("period_s", by=1.5)),
]  # fmt: skip


def main(arguments: list[str]) -> None:
    bundle = read_bundle(arguments[0])
    limits = golden.tolerance_of(bundle)
    print(f"{limits} where a network takes part, {golden.EXACT} elsewhere, sums of banks {golden.EXACT_SUMS}")
    for backend in arguments[1:] or ["onnxruntime", "openvino"]:
        for bank in ("exact", "hnsw"):
            found = deviations(bundle, backend, 1, bank)
            print(f"{backend}, {bank}:", ", ".join(f"{name} {value:.2g}" for name, value in sorted(found.items())))


if __name__ == "__main__":
    main(sys.argv[1:])

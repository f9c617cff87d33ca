"""The golden self-test must fail when an installation computes something else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from edge_vad.backends import Backend
from edge_vad.bundle import CALIBRATION, GOLDEN, PREPROCESSING, Bundle, canonical_json, read_bundle
from edge_vad.detector import Detector
from edge_vad.errors import BundleIntegrityError
from edge_vad.golden import check_golden, golden_frames
from edge_vad.methods import Method
from edge_vad.plugins import load


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


def changed(bundle: Bundle, **members: bytes) -> Bundle:
    return Bundle(bundle.manifest, {**bundle.members, **members})


def method(bundle: Bundle, backend: type[Backend] | None = None) -> Method:
    backend = backend or load("backends", "onnxruntime", Backend)
    return load("methods", bundle.method, Method).open(bundle, backend, threads=1, device="cpu", bank="exact")


def test_a_healthy_installation_passes(bundle: Bundle) -> None:
    check_golden(bundle, method(bundle))


def test_swapped_colours_fail(bundle: Bundle) -> None:
    preprocessing = {**bundle.preprocessing}
    preprocessing["preprocessing"] = {**preprocessing["preprocessing"], "colour_order": "BGR"}
    other = changed(bundle, **{PREPROCESSING: canonical_json(preprocessing)})
    with pytest.raises(BundleIntegrityError, match="golden self-test: components differs"):
        check_golden(other, method(other))


def test_a_wrong_scale_fails(bundle: Bundle) -> None:
    preprocessing = {**bundle.preprocessing}
    preprocessing["preprocessing"] = {**preprocessing["preprocessing"], "std": [1.0, 1.0, 1.0]}
    other = changed(bundle, **{PREPROCESSING: canonical_json(preprocessing)})
    with pytest.raises(BundleIntegrityError, match="golden self-test"):
        check_golden(other, method(other))


def test_another_bank_fails(bundle: Bundle) -> None:
    rows = bundle.rows("spatial")
    name = bundle.manifest["banks"]["spatial"]["file"]
    other = changed(bundle, **{name: save({"rows": np.roll(rows, 1, axis=1).astype(np.float16)})})
    with pytest.raises(BundleIntegrityError, match="golden self-test"):
        check_golden(other, method(other))


def test_a_backend_that_computes_something_else_cannot_score(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = load("backends", "onnxruntime", Backend)
    run = kind.run

    def broken(self: Backend, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: np.roll(values, 1, axis=1) for name, values in run(self, inputs).items()}

    monkeypatch.setattr(kind, "run", broken)
    with pytest.raises(BundleIntegrityError, match="computes something else"):
        Detector.open(tiny_bundle)
    assert Detector.open(tiny_bundle, self_test=False) is not None


def test_values_of_another_shape_or_unknown_ones_fail(bundle: Bundle) -> None:
    stored = bundle.golden()
    for components in (stored["components"][:-1], np.full_like(stored["components"], np.nan)):
        other = changed(bundle, **{GOLDEN: save({**stored, "components": np.ascontiguousarray(components)})})
        with pytest.raises(BundleIntegrityError, match="golden self-test"):
            check_golden(other, method(other))


def test_the_self_test_leaves_no_trace_in_the_scores(tiny_bundle: Path) -> None:
    import tiny

    frames = tiny.clip_frames(12, seed=3)
    tested, untested = (Detector.open(tiny_bundle, self_test=on) for on in (True, False))
    assert [tested.process(f).score for f in frames] == [untested.process(f).score for f in frames]


def test_small_pictures_become_frames_of_full_size() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 9, 3), dtype=np.uint8)
    frames = golden_frames(images, (90, 60), 0.2)
    assert [frame.image.shape for frame in frames] == [(60, 90, 3)] * 3
    assert [frame.timestamp for frame in frames] == pytest.approx([0, 0.2, 0.4])
    assert np.abs(frames[1].image[5::10, 5::10].astype(int) - images[1]).mean() < 12


def test_golden_frames_have_something_to_compare(bundle: Bundle) -> None:
    components = bundle.golden()["components"]
    assert np.isfinite(components).any() and np.nanmax(components) > 0
    assert CALIBRATION in bundle.members

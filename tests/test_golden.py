"""The golden self-test passes on every healthy installation and names the step that is wrong on all others.

What healthy installations differ by, beside the tolerances: python tests/golden_faults.py SITE.evb
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from golden_faults import FAULTS, Fault, deviations, method_of, scoring_of, with_int8_rows, with_members

from edge_vad import golden, tensorfile
from edge_vad.backends.onnxruntime import OnnxRuntime
from edge_vad.bundle import Bundle, read_bundle
from edge_vad.detector import Detector
from edge_vad.errors import BackendError, SelfTestError
from edge_vad.golden import EXACT, check_golden, golden_frames, tolerance_of
from edge_vad.manifest import GOLDEN, PREPROCESSING, canonical_json
from edge_vad.methods.base import Method
from edge_vad.plugins import load
from edge_vad.profile import Inference, load_profile
from edge_vad.streams import LocalSettings
from edge_vad.strict import numbers

MARGIN = 2.0  # at least this many times what another healthy backend differs by is allowed


@pytest.fixture(scope="module", params=["tiny_bundle", "street_bundle"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    """A small fp32 bundle, and one of the default INT8 encoder."""
    return read_bundle(request.getfixturevalue(request.param))


@pytest.fixture
def small(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


def checked(bundle: Bundle, *installation: Any) -> None:
    scoring = scoring_of(bundle)
    check_golden(bundle, method_of(bundle, *installation), scoring.calibration, scoring.events)


def with_golden(bundle: Bundle, **arrays: np.ndarray | None) -> Bundle:
    """The bundle with other golden arrays; None leaves one out."""
    changed = {n: np.ascontiguousarray(a) for n, a in {**bundle.golden(), **arrays}.items() if a is not None}
    return with_members(bundle, {GOLDEN: tensorfile.save(changed, {})})


@pytest.mark.parametrize("bank", ["exact", "hnsw", "auto"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_a_healthy_installation_passes_with_room_to_spare(bundle: Bundle, backend: str, threads: int, bank: str) -> None:
    checked(bundle, backend, threads, bank)
    limits, exact = tolerance_of(bundle), load("methods", bundle.method, Method).without_network
    for name, found in deviations(bundle, backend, threads, bank).items():
        limit = EXACT if name.partition(".")[2] in exact else limits
        allowed = limit.of(name.partition(".")[0])
        assert found <= allowed / MARGIN, f"{backend}, {bank}: {name} differs by {found:.2g}, allowed are {allowed:g}"


def test_int8_rows_pass_too(small: Bundle) -> None:
    checked(with_int8_rows(small))


def test_there_are_many_faults_of_many_kinds() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_found_and_its_first_wrong_step_is_named(
    bundle: Bundle, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty = fault.make(bundle, monkeypatch)
    with pytest.raises(SelfTestError, match=rf"^golden self-test: ({fault.step})( differ|;)") as caught:
        Detector.open(faulty)
    assert "\n" not in str(caught.value)
    assert Detector.open(faulty, self_test=False) is not None


def test_a_backend_that_gives_no_numbers_cannot_score(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = OnnxRuntime.run

    def broken(self: OnnxRuntime, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name: np.where(values > values.mean(), np.float32("nan"), values) for name, values in run(self, inputs).items()
        }

    detector = Detector.open(tiny_bundle)
    monkeypatch.setattr(OnnxRuntime, "run", broken)
    with pytest.raises(BackendError, match="gives numbers beyond 1e\\+09, or none, as 'fine'"):
        Detector.open(tiny_bundle)
    with pytest.raises(BackendError, match="or none"):  # nor later: what is not a number would score as normal
        for frame in tiny.clip_frames(12, seed=3):
            detector.process(frame)


@pytest.mark.parametrize("name", ["bank.spatial", "embedding.temporal", "components.speed", "scores"])
def test_a_value_that_is_missing_of_another_shape_or_type_or_not_finite_fails(small: Bundle, name: str) -> None:
    stored = small.golden()[name]
    infinite = stored.copy()
    infinite.reshape(-1)[-1] = np.inf
    cases = {
        "is missing": None,
        "has another shape": stored[:-1],
        "shape or type": stored.astype(np.float64),
        "or type;": infinite,
        "is known for other frames": np.full_like(stored, np.nan),
    }
    for words, array in cases.items():
        with pytest.raises(SelfTestError, match=f"golden self-test: {name} .*{words}"):
            checked(with_golden(small, **{name: array}))


def test_arrays_of_a_step_are_all_there_and_no_others(small: Bundle) -> None:
    with pytest.raises(SelfTestError, match=r"golden self-test: bank\.velocity is missing"):
        checked(with_golden(small, **{"bank.velocity": None}))
    with pytest.raises(SelfTestError, match=r"golden self-test: bank\.more is unknown"):
        checked(with_golden(small, **{"bank.more": small.golden()["bank.velocity"]}))


def test_a_bundle_of_another_minor_version_may_know_other_steps(small: Bundle) -> None:
    stored = small.golden()
    newer = {"later.spatial": stored["scores"], "later": stored["scores"]}
    older = {name: None for name in stored if name.startswith(("settings.", "regions."))}
    checked(with_golden(small, **newer, **older))
    for step in golden.ALWAYS:
        with pytest.raises(SelfTestError, match=f"golden self-test: {step}.* is missing"):
            checked(with_golden(small, **{name: None for name in stored if name.startswith(step)}))


IMAGES = np.zeros((3, 60, 90, 3), np.uint8)


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": None},
        {"images": IMAGES[0]},
        {"images": IMAGES[:0]},
        {"images": IMAGES[:, :1]},
        {"images": IMAGES[..., :2]},
        {"images": IMAGES.astype(np.float32)},
        {"images": np.zeros((65, 2, 2, 3), np.uint8)},
        {"frame": None},
        {"frame": np.array([180, 120], np.float64)},
        {"frame": np.array([180, 120, 0.2], np.float32)},
        {"frame": np.array([181, 120, 0.2])},
        {"frame": np.array([180.5, 120, 0.2])},
        {"frame": np.array([np.nan, 120, 0.2])},
        {"frame": np.array([1e12, 1e12, 0.2])},
        {"frame": np.array([180, 120, 0.4])},
        {"frame": np.array([180, 120, np.nan])},
    ],
)
def test_golden_frames_that_are_none_are_refused_before_any_is_made(
    small: Bundle, arrays: dict[str, np.ndarray | None]
) -> None:
    with pytest.raises(SelfTestError, match=r"golden self-test: (no |its frames ).*build the bundle again"):
        checked(with_golden(small, **arrays))


def test_frames_of_any_method_have_a_largest_size(small: Bundle) -> None:
    method = method_of(small)
    method.image_size = None
    scoring = scoring_of(small)
    for size in (1e12, 8192.0, np.nan):
        huge = with_golden(small, frame=np.array([size, size, 0.2]))
        with pytest.raises(SelfTestError, match="pixels are not the bundle's"):
            check_golden(huge, method, scoring.calibration, scoring.events)


def test_the_lowest_precision_in_the_bundle_sets_the_tolerance(small: Bundle) -> None:
    encoder = small.manifest.models["encoder"]
    detector = replace(encoder, file="detector/detector.onnx", precision="int8")
    files = {**small.manifest.files, detector.file: small.manifest.files[encoder.file]}
    mixed = replace(small.manifest, models={"encoder": encoder, "detector": detector}, files=files)
    assert tolerance_of(small) == golden.TOLERANCES["fp32"]
    assert tolerance_of(replace(small, manifest=mixed)) == golden.TOLERANCES["int8"]
    assert tolerance_of(small, "fp16") == golden.TOLERANCES["fp16"]
    assert tolerance_of(replace(small, manifest=mixed), "fp16") == golden.TOLERANCES["int8"]


def test_a_setting_that_came_later_and_has_a_default_does_not_matter(small: Bundle) -> None:
    """What is compared are the numbers that stand in the bundle, not those that a later runtime adds to them."""
    plain = small.preprocessing
    assert plain["local"].pop("enlarge") == LocalSettings().enlarge
    older = with_members(small, {PREPROCESSING: canonical_json(plain)})
    checked(with_golden(older, **{"settings.features": np.array(numbers(plain))}))
    with pytest.raises(SelfTestError, match=r"settings\.features has another shape"):
        checked(older)


def test_a_distance_near_zero_is_compared_with_the_largest() -> None:
    expected = np.array([1e-7, 1.0, 2.0], np.float32)
    assert golden.deviation("distances.a", expected, expected + np.float32(1e-4)) == pytest.approx(5e-4, rel=0.1)
    assert golden.deviation("scores", expected, expected + np.float32(1e-4)) == pytest.approx(1e-4, rel=0.1)


def test_the_self_test_leaves_no_trace_in_the_scores(tiny_bundle: Path) -> None:
    frames = tiny.clip_frames(12, seed=3)
    tested, untested = (Detector.open(tiny_bundle, self_test=on) for on in (True, False))
    assert [tested.process(f).score for f in frames] == [untested.process(f).score for f in frames]


def test_the_profile_chooses_what_is_tested(tiny_bundle: Path) -> None:
    profile = replace(load_profile("desktop_cpu"), inference=Inference("openvino", bank="hnsw", threads=2))
    assert Detector.open(tiny_bundle, profile) is not None


def test_small_pictures_become_frames_of_full_size() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 6, 9, 3), dtype=np.uint8)
    frames = golden_frames(images, (90, 60), 0.2)
    assert [frame.image.shape for frame in frames] == [(60, 90, 3)] * 3
    assert [frame.timestamp for frame in frames] == pytest.approx([0, 0.2, 0.4])
    assert np.abs(frames[1].image[5::10, 5::10].astype(int) - images[1]).mean() < 12


def test_golden_frames_show_something_normal_and_something_strange(bundle: Bundle) -> None:
    stored = bundle.golden()
    for name in scoring_of(bundle).calibration.components:
        values = stored[f"components.{name}"]
        assert np.isfinite(values).any() and np.nanmax(values) > 0
    assert set(stored["decisions"].tolist()) == {0, 1}

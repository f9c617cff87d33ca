"""A bundle with everything on the device: what the numpy path says, in few downloads."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from on_host import OnHost, check_observations, check_same, counted_downloads, detector_model, opened

from edge_vad import Detector, Frame, read_bundle
from edge_vad.backends.torch import Torch
from edge_vad.batch import run_alone, run_together
from edge_vad.bundle import Bundle
from edge_vad.errors import BackendError, SelfTestError, SourceError
from edge_vad.features import Encoder
from edge_vad.learning import Learner
from edge_vad.methods.base import Observation
from edge_vad.methods.videopatchcore import VideoPatchCore
from edge_vad.object_detector import ObjectDetector, ObjectSettings
from edge_vad.perspective import Perspective
from edge_vad.profile import Inference, Profile, load_profile
from edge_vad.recovery import Sessions
from edge_vad.streams import Extractor, Settings
from edge_vad.strict import from_plain
from edge_vad.tensors import motion, transfer, watch
from edge_vad.tensors import streams as tensor_streams
from edge_vad.tensors.features import TensorEncoder
from edge_vad.tensors.method import TensorPatchCore, TensorSearch
from edge_vad.tensors.object_detector import TensorObjectDetector
from edge_vad.tensors.search import Banks, TensorBank
from edge_vad.tensors.streams import TensorExtractor
from edge_vad.tensors.transfer import Download

FRAMES = tiny.clip_frames(44, seed=5, anomalies="all")[::2]
ON_TORCH = ("inference.backend=torch",)


@pytest.fixture
def small(tiny_bundle: Path) -> Bundle:
    return read_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def whole(footage: Path, tiny_encoder: Path) -> Path:
    """A bundle of all components: an object detector's boxes too, and high-level rows."""
    from edge_vad.cli import main

    out, config = tiny_encoder.with_name("whole.evb"), tiny_encoder.with_name("whole.yaml")
    detector = tiny_encoder.with_name("detector.onnx")
    detector.write_bytes(detector_model("yolox"))
    config.write_text("weights: {spatial: 1, temporal: 0.5, velocity: 1, speed: 1, highlevel: 0.25}\n")
    arguments = tiny.build_arguments(footage, out, tiny_encoder, "--config", str(config), "--detector", str(detector))
    assert main(arguments) == 0
    return out


def test_a_bundle_on_the_cpu_equals_numpy(tiny_bundle: Path) -> None:
    found = opened(tiny_bundle, Torch)
    assert isinstance(found, TensorPatchCore) and found.bank_kinds() == dict.fromkeys(found.bank_kinds(), "exact")
    assert check_same(opened(tiny_bundle, OnHost), found, FRAMES) > 50
    found.reset()
    assert check_same(opened(tiny_bundle, OnHost), found, FRAMES[::-1][:4]) == 0, "the past is forgotten"


def test_every_component_equals_numpy(whole: Path) -> None:
    found = opened(whole, Torch)
    assert {"highlevel", "object_spatial", "object_velocity"} <= set(found.components)
    assert check_same(opened(whole, OnHost), found, FRAMES) > 50


def test_the_default_encoder_in_int8_passes_its_self_test_and_scores_the_same(street_bundle: Path, street: Path) -> None:
    frames = tiny.clip_frames(30, seed=3, size=(360, 240), anomalies="all")[::2]
    profile = load_profile("desktop_cpu", ON_TORCH)
    here, there = (Detector.open(street_bundle, profile, backend=backend) for backend in (OnHost, None))
    for frame in frames:
        one, other = here.process(frame), there.process(frame)
        assert other.score == pytest.approx(one.score, abs=1e-2) and len(other.regions) == len(one.regions)
        assert other.components == pytest.approx(one.components, rel=1e-3, abs=1e-4)


def variants() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Changed settings: a name, of the local stream, of the whole."""
    for kind in ("average", "maximum", "average+maximum"):
        yield f"temporal pooling {kind}", {"temporal_pooling": kind}, {}
    yield "other sizes", {"crop": 48, "enlarge": 0.8, "split_channels": 4, "spatial_kernel": 3, "margin": 0}, {}
    yield "maximum over space", {"pooling_infer": "maximum"}, {}
    yield "tracks of one frame", {"clip_s": 0.01}, {}
    yield "long tracks", {"clip_s": 3.0}, {}
    yield "no encoder", {}, {"components": ("velocity", "speed")}
    yield "whole frames only", {}, {"components": ("highlevel",)}
    yield "BGR", {}, {"colour_order": "BGR"}
    yield "pictures of a fixed size", {}, {"fixed_size": 64, "components": ("spatial", "highlevel")}


@pytest.mark.parametrize(("local", "other"), [v[1:] for v in variants()], ids=[v[0] for v in variants()])
def test_features_of_any_settings_equal_numpy(small: Bundle, local: dict[str, Any], other: dict[str, Any]) -> None:
    settings = from_plain(Settings, small.preprocessing, "preprocessing.json", ValueError)
    other = {"components": (*settings.components, "highlevel"), **other}
    inner = {k: other.pop(k) for k in ("colour_order", "fixed_size") if k in other}
    settings = replace(settings, preprocessing=replace(settings.preprocessing, **inner), **other)
    settings = replace(settings, local=replace(settings.local, **local))
    here = Extractor(settings, Encoder(OnHost(small.model("encoder")), settings.preprocessing))
    encoder = TensorEncoder(Torch(small.model("encoder")), settings.preprocessing, few_sizes=True)
    there = TensorExtractor(settings, encoder, None)
    n_regions = 0
    for frame in FRAMES:
        one, features = here(frame), run_alone(there.steps(frame))
        other_one = features.on_host()
        expected, found = one.local[""], other_one.local[""]
        assert np.array_equal(found.boxes, expected.boxes) and np.array_equal(found.age, expected.age)
        assert np.array_equal(found.continued, expected.continued) and found.rows.keys() == expected.rows.keys()
        np.testing.assert_allclose(found.speed, expected.speed, rtol=1e-4, atol=1e-6)
        for name, rows in expected.rows.items():
            np.testing.assert_allclose(found.rows[name], rows, rtol=1e-3, atol=2e-5, err_msg=name)
        assert (one.highlevel is None) == (other_one.highlevel is None)
        if one.highlevel is not None and other_one.highlevel is not None:
            np.testing.assert_allclose(other_one.highlevel, one.highlevel, rtol=1e-4, atol=1e-6)
        n_regions += len(found.boxes)
    assert n_regions > 50


@pytest.mark.parametrize("head", ["yolox", "yolov5", "yolov8"])
def test_an_object_detectors_boxes_equal_numpy(head: Any) -> None:
    data, perspective = detector_model(head), Perspective(30.0, 0.1, 60.0)
    settings = ObjectSettings("images", "boxes", head, (160, 96), min_height=0.0)
    here, there = ObjectDetector(OnHost(data), settings), TensorObjectDetector(Torch(data), settings)
    for frame in FRAMES[::7]:
        boxes, confidence = here(frame.image, perspective)
        rows = there.rows(torch.from_numpy(frame.image))
        assert rows.numel() <= 6 * 315, "no class by class"
        found, sure = there.boxes(rows.numpy(), frame.image.shape, perspective)
        assert 1 < len(boxes) <= 60
        np.testing.assert_allclose(found, boxes, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(sure, confidence, rtol=1e-4, atol=1e-6)


def test_two_downloads_a_frame_of_a_mask_and_the_scores(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = opened(tiny_bundle, Torch)
    mask = (tiny.SIZE[1] // 2) * (tiny.SIZE[0] // 2)
    for frame in FRAMES:
        with counted_downloads(monkeypatch) as sizes:
            seen = method.observe(frame)
        n, k = len(seen.regions), len(method.components)
        assert sizes == ([mask, 4 * n * (k + 1) + 1] if n else [mask])


def test_an_object_detector_asks_for_no_further_download(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, settings = opened(whole, Torch), from_plain(Settings, read_bundle(whole).preprocessing, "", ValueError)
    assert settings.objects is not None
    n_cells = sum((settings.objects.input_size[0] // s) * (settings.objects.input_size[1] // s) for s in (8, 16, 32))
    mask = (tiny.SIZE[1] // 2) * (tiny.SIZE[0] // 2)
    for frame in FRAMES:
        with counted_downloads(monkeypatch) as sizes:
            method.observe(frame)
        assert len(sizes) == 2 and sizes[0] == mask + 4 * 6 * n_cells, "the likeliest class only"


class OnMeta(Torch):
    """The network on a device that has shapes but no values: whatever looks at one fails."""

    def __init__(self, model: bytes, **how: Any) -> None:
        super().__init__(model, **how)
        self._network._device = torch.device("meta")
        self._network._constants = {k: v.to("meta") for k, v in self._network._constants.items()}
        steps = self._network._steps
        self._network._steps = [
            replace(s, given=tuple(v.to("meta") if isinstance(v, torch.Tensor) else v for v in s.given)) for s in steps
        ]
        self.torch_device = "meta"


@pytest.mark.parametrize("kind", ["last", "average+maximum"])
def test_nothing_else_is_read_back_from_the_device(small: Bundle, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a frame on the meta device, where only a download can fail; it is replaced by what the CPU says."""
    settings = from_plain(Settings, small.preprocessing, "preprocessing.json", ValueError)
    settings = replace(settings, components=(*settings.components, "highlevel"))
    settings = replace(settings, local=replace(settings.local, temporal_pooling=kind))
    here = Extractor(settings, Encoder(OnHost(small.model("encoder")), settings.preprocessing))
    there = TensorExtractor(settings, TensorEncoder(OnMeta(small.model("encoder")), settings.preprocessing), None)
    rows = {name: small.rows(name) for name in small.bank_names}
    banks = Banks({name: TensorBank(values, torch.device("meta"), True) for name, values in rows.items()})
    search = TensorSearch(replace(settings, components=settings.components[:-1]), banks)
    n_regions = 0
    for frame in FRAMES[:12]:
        steps, mask = there.steps(frame), moving_pixels(here, frame)
        request = next(steps)
        with pytest.raises(BackendError, match="Cannot copy out of meta tensor"):
            request.serve([request])
        try:
            request = steps.send([mask])
            while True:
                request = steps.send(request.serve([request])[0])
        except StopIteration as end:
            features = end.value
        features.highlevel = None
        if len(features.local[""].boxes):
            scoring = search.steps(features)
            nearest = next(scoring)
            assert isinstance(scoring.send(nearest.serve([nearest])[0]), Download)
        n_regions += len(features.local[""].boxes)
    assert n_regions > 20


def moving_pixels(extractor: Extractor, frame: Frame) -> np.ndarray:
    """The mask that the numpy path makes of a frame."""
    masks: list[np.ndarray] = []
    update = extractor._difference.update

    def kept(*arguments: Any) -> Any:
        found = update(*arguments)
        masks.append(found[0])
        return found

    extractor._difference.update = kept  # type: ignore[method-assign]
    extractor(frame)
    extractor._difference.update = update  # type: ignore[method-assign]
    return masks[0]


def test_other_banks_and_learning_search_on_the_host_and_say_so(tiny_bundle: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        found = opened(tiny_bundle, Torch, "compact")
    assert isinstance(found, VideoPatchCore) and "bank compact searches on the host" in caplog.text
    assert check_same(opened(tiny_bundle, OnHost), found, FRAMES[:8]) > 0
    learner = Learner(read_bundle(tiny_bundle), load_profile("desktop_cpu", ON_TORCH))
    assert isinstance(learner._method, VideoPatchCore) and learner.see(FRAMES[0]).score == 0


def test_no_torch_is_imported_for_other_backends(tiny_bundle: Path) -> None:
    import subprocess

    code = f"import sys; from edge_vad import Detector; Detector.open({str(tiny_bundle)!r}); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def whole_picture(image: torch.Tensor, boxes: torch.Tensor, width: int, height: int) -> torch.Tensor:
    return tensor_streams.resize(image, width, height)[None].expand(len(boxes), -1, -1, -1)


@pytest.mark.parametrize(
    ("where", "name", "wrong", "step"),
    [
        (tensor_streams, "crops", whole_picture, "embedding.spatial"),
        (motion, "changed", lambda now, *_: torch.zeros(now.shape[:2], dtype=torch.bool), "regions.motion"),
        (TensorBank, "distances", lambda self, queries: queries.new_ones(len(queries)), "distances"),
    ],
)
def test_a_fault_in_the_tensor_path_is_found_by_the_self_test(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, where: Any, name: str, wrong: Any, step: str
) -> None:
    profile = load_profile("desktop_cpu", ON_TORCH)
    Detector.open(tiny_bundle, profile)
    monkeypatch.setattr(where, name, wrong)
    with pytest.raises(SelfTestError, match=step):
        Detector.open(tiny_bundle, profile)


def test_what_is_no_number_is_an_error_and_is_forgotten(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, expected = opened(tiny_bundle, Torch), opened(tiny_bundle, OnHost)
    for frame in FRAMES[:8]:
        method.observe(frame)
    run = Torch.run_tensors

    def broken(self: Torch, inputs: Mapping[str, Any]) -> dict[str, Any]:
        found = run(self, inputs)
        return {name: torch.where(values > values.mean(), torch.nan, values) for name, values in found.items()}

    with monkeypatch.context() as patch, pytest.raises(BackendError, match=r"beyond 1e\+09, or none"):
        patch.setattr(Torch, "run_tensors", broken)
        method.observe(FRAMES[8])
    assert check_same(expected, method, FRAMES[9:]) > 20


def test_a_device_that_fails_is_a_backend_error(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = opened(tiny_bundle, Torch)

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate more")

    for name in ("crops", "decimate", "link"):
        with (
            monkeypatch.context() as patch,
            pytest.raises(BackendError, match=r"^backend torch failed: CUDA out of memory\.$"),
        ):
            patch.setattr(tensor_streams, name, full)
            for frame in FRAMES:
                method.observe(frame)
        method.reset()


def test_frames_of_another_size_are_refused_and_forget_nothing(tiny_bundle: Path) -> None:
    method, expected = opened(tiny_bundle, Torch), opened(tiny_bundle, OnHost)
    assert check_same(expected, method, FRAMES[:8]) > 0
    with pytest.raises(SourceError, match="200x120 pixels, the bundle was built for 180x120"):
        method.observe(tiny.clip_frames(1, size=(200, 120))[0])
    assert check_same(expected, method, FRAMES[8:12]) > 0


def test_a_session_that_is_tried_again_takes_tensors_too(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    sessions = Sessions(lambda kind, why: told.append(kind))
    method = opened(tiny_bundle, sessions.backend(Inference("torch")))
    assert isinstance(method, TensorPatchCore)
    run, failures = Torch.run_tensors, 2  # of the first frame with regions: one try, one more, and a new session

    def shaky(self: Torch, inputs: Mapping[str, Any]) -> dict[str, Any]:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise BackendError("the device is gone")
        return run(self, inputs)

    expected = opened(tiny_bundle, OnHost)
    seen = [expected.observe(frame) for frame in FRAMES[:8]]
    monkeypatch.setattr(Torch, "run_tensors", shaky)
    for one, frame in zip(seen, FRAMES, strict=False):
        check_observations(one, method.observe(frame))
    assert told == ["retried", "rebuilt"]


def test_half_precision_is_within_its_tolerance(tiny_bundle: Path) -> None:
    """Two hundredths of a score, as the self-test allows for fp16; the tiny encoder, as CPUs are slow at it."""
    half = Profile("", "", Inference("torch", precision="fp16"))
    here, there = Detector.open(tiny_bundle, load_profile("desktop_cpu")), Detector.open(tiny_bundle, half)
    differences = []
    for frame in FRAMES:
        one, other = here.process(frame), there.process(frame)
        assert len(other.regions) == len(one.regions)
        differences.append(abs(other.score - one.score) / max(abs(one.score), 1))
        assert other.components == pytest.approx(one.components, rel=0.02, abs=0.02)
    assert 0 < max(differences) < 0.02


def test_stages_are_timed(whole: Path) -> None:
    method = opened(whole, Torch)
    seen = [method.observe(frame).stage_ms for frame in FRAMES][-1]
    wanted = {
        "upload",
        "motion",
        "regions",
        "object detector",
        "velocity",
        "crops",
        "encoder",
        "features",
        "search",
        "download",
    }
    assert wanted <= set(seen) and all(value >= 0 for value in seen.values())


class Events:
    """A GPU's stream and its events: one is reached once the host has waited for everything queued so far."""

    def __init__(self) -> None:
        self.n_queued = self.n_reached = self.n_read = 0

    def wait(self, device: torch.device) -> None:
        self.n_reached = self.n_queued

    def event(self, enable_timing: bool) -> Any:
        return _Event(self)


class _Event:
    def __init__(self, events: Events) -> None:
        self._events = events

    def record(self, stream: object) -> None:
        self._events.n_queued += 1
        self.number = self._events.n_queued

    def elapsed_time(self, end: _Event) -> float:
        assert max(self.number, end.number) <= self._events.n_reached, "device not ready"
        self._events.n_read += 1
        return float(end.number - self.number)


def test_times_of_a_gpu_are_read_without_waiting_for_it_once_more(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a frame holds: an event that is read was queued before the last download ended."""
    events = Events()
    monkeypatch.setattr(watch, "stream_of", lambda device: events)
    monkeypatch.setattr(torch.cuda, "Event", events.event)
    monkeypatch.setattr(transfer, "_wait", events.wait)
    methods = [opened(bundle, Torch) for bundle in (whole, whole)]
    for frame in [*FRAMES[:12], *tiny.still_frames(FRAMES[0].image, 32)[20:]]:
        found = run_together([method.steps(frame) for method in methods])
        assert all(seen.stage_ms["download"] > 0 for seen in found if isinstance(seen, Observation))
        assert not [seen for seen in found if isinstance(seen, Exception)]
    assert events.n_read > 300


def test_a_still_picture_costs_one_download(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = opened(tiny_bundle, Torch)
    for frame in tiny.still_frames(FRAMES[0].image, 12):
        with counted_downloads(monkeypatch) as sizes:
            seen = method.observe(frame)
        assert len(sizes) == 1 and seen.regions == () and not any(map(len, seen.region_components.values()))


def test_the_cameras_own_luma_is_used(small: Bundle) -> None:
    """Of a working pixel for each: else it is computed from the picture."""
    settings = from_plain(Settings, small.preprocessing, "preprocessing.json", ValueError)
    extractor = TensorExtractor(settings, TensorEncoder(Torch(small.model("encoder")), settings.preprocessing), None)
    own = np.full([side // settings.factor for side in FRAMES[0].image.shape[:2]], 7, np.uint8)
    for frame, is_own in ((replace(FRAMES[0], luma=own), True), (replace(FRAMES[1], luma=own[:3]), False)):
        run_alone(extractor.steps(frame))
        luma = extractor._difference._past[-1].luma
        assert luma.shape == own.shape and (luma == 7).all() == is_own

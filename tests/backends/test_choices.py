"""Which backend runs, on which device, and how: what a profile says, and what becomes of it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiny

from edge_vad.backends import Backend
from edge_vad.backends.base import load_backend
from edge_vad.backends.onnxruntime import OnnxRuntime
from edge_vad.detector import Detector
from edge_vad.errors import BackendError, ProfileError
from edge_vad.profile import Choice, Inference, load_profile
from edge_vad.recovery import Sessions


class Plain(OnnxRuntime):
    """A backend of someone who knows threads and devices only."""

    def __init__(self, model: bytes, *, threads: int = 1, device: str = "cpu") -> None:
        super().__init__(model, threads=threads, device=device)


class Asking(OnnxRuntime):
    """A backend that hands on whatever it is given."""

    def __init__(self, model: bytes, **said: Any) -> None:
        self.said = dict(said)
        super().__init__(model, **{**said, "precision": "fp32"})


@pytest.fixture(params=[Plain, Asking])
def foreign(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a backend that is not part of edge-vad."""
    module = ModuleType("foreign.backend")
    module.Foreign = request.param  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "foreign.backend", module)
    return "foreign.backend:Foreign"


def profile_with(*overrides: str) -> Inference:
    return load_profile("desktop_cpu", [f"inference.{override}" for override in overrides]).inference


def test_fallbacks_are_backends_on_devices_in_their_order() -> None:
    said = profile_with("device=cuda:0", "fallback=[torch, openvino@cpu, 'my.module:Class@npu:1', onnxruntime@cuda:1]")
    assert said.choices == (
        Choice("onnxruntime", "cuda:0"),
        Choice("torch", "cuda:0"),
        Choice("openvino", "cpu"),
        Choice("my.module:Class", "npu:1"),
        Choice("onnxruntime", "cuda:1"),
    )
    assert [str(choice) for choice in said.choices][2:4] == ["openvino@cpu", "my.module:Class@npu:1"]


def test_without_an_entry_there_is_no_fallback() -> None:
    assert profile_with("device=cuda:0").choices == (Choice("onnxruntime", "cuda:0"),)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("onnxruntme@cpu", "no backend named 'onnxruntme' .did you mean 'onnxruntime'"),
        ("onnxruntime@cuda0", "backend onnxruntime: no device 'cuda0' .known: cpu, cuda:0, tensorrt:0"),
        ("openvino@cuda:0", "backend openvino: no device 'cuda:0'"),
        ("torch@", "'torch@' is not BACKEND or BACKEND@DEVICE"),
        ("'@cpu'", "'@cpu' is not BACKEND"),
        ("torch@cpu@cpu", "'torch@cpu@cpu' is not BACKEND"),
        ("onnxruntime@cpu", "one backend twice: onnxruntime@cpu, onnxruntime@cpu"),
        ("onnxruntime", "one backend twice"),
    ],
)
def test_a_wrong_fallback_is_found_when_the_profile_is_read(entry: str, words: str) -> None:
    with pytest.raises(ProfileError, match=f"inference: fallback: {words}"):
        profile_with(f"fallback=[{entry}]")


def test_a_precision_that_does_not_exist_is_named() -> None:
    with pytest.raises(ProfileError, match="precision: 'fp8' is not allowed"):
        profile_with("precision=fp8")


def test_a_fallback_on_the_cpu_computes_in_fp32() -> None:
    said = profile_with("device=cuda:0", "precision=fp16", "backend=torch", "fallback=[onnxruntime@cpu, torch@cuda:1]")
    first, cpu, gpu = (said.on(choice) for choice in said.choices)
    assert (first.precision, cpu.precision, gpu.precision) == ("fp16", "fp32", "fp16")
    assert [(i.backend, i.device) for i in (first, cpu, gpu)] == [tuple(choice) for choice in said.choices]


def test_a_backend_that_knows_neither_precision_nor_cache_works(foreign: str, tmp_path: Path) -> None:
    made = load_backend(Inference(foreign, engine_cache=str(tmp_path)))(tiny.encoder_model(), threads=1, device="cpu")
    assert made.run({"image": np.zeros((1, 3, 16, 16), np.float32)})["coarse"].shape == (1, 8, 2, 2)
    if isinstance(made, Asking):
        assert made.said == {"threads": 1, "device": "cpu", "precision": "fp32", "cache": tmp_path}


def test_fp16_of_a_backend_that_does_not_know_it_is_refused(foreign: str) -> None:
    if "Asking" in str(sys.modules["foreign.backend"].Foreign):
        assert load_backend(Inference(foreign, precision="fp16"))(tiny.encoder_model()).said["precision"] == "fp16"  # type: ignore[attr-defined]
    else:
        with pytest.raises(BackendError, match=f"{foreign} computes in fp32 only"):
            load_backend(Inference(foreign, precision="fp16"))


def test_sessions_are_shared_by_model_device_threads_and_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    class Anywhere(Backend):
        outputs = ("y",)

        def __init__(self, model: bytes, *, threads: int = 1, device: str = "cpu", precision: str = "fp32") -> None: ...

        def run(self, inputs: Any) -> dict[str, np.ndarray]:
            return {}

    module = ModuleType("foreign.backend")
    module.Anywhere = Anywhere  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "foreign.backend", module)
    sessions, name = Sessions(lambda kind, why: None), "foreign.backend:Anywhere"

    def session(device: str = "cpu", precision: Any = "fp32", model: bytes = b"m", threads: int = 1) -> int:
        inference = Inference(name, device=device, precision=precision)
        return id(sessions.backend(inference)(model, threads=threads, device=device))

    ids = [session(), session("gpu"), session(precision="fp16"), session(model=b"n"), session(threads=2)]
    assert len(set(ids)) == 5
    assert session() == ids[0] and session("gpu") == ids[1]
    kept = sessions.backend(Inference(name, device="gpu"))(b"m", device="gpu")
    sessions.discard(Choice(name, "cpu"), sessions.epoch(Choice(name, "cpu")))
    assert sessions.epoch(Choice(name, "cpu")) == 1 and sessions.epoch(Choice(name, "gpu")) == 0
    assert session("gpu") == id(kept), "what failed on one device may be well on another"


def test_a_detector_never_falls_back(tiny_bundle: Path) -> None:
    profile = load_profile("desktop_cpu", ["inference.device=cuda:99", "inference.fallback=[onnxruntime@cpu]"])
    with pytest.raises(BackendError, match="cuda"):
        Detector.open(tiny_bundle, profile)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_every_backend_passes_the_self_test_of_a_bundle(backend: str, tiny_bundle: Path) -> None:
    Detector.open(tiny_bundle, load_profile("desktop_cpu", [f"inference.backend={backend}"]))

"""What the backend asks of ONNX Runtime, and that what was asked for is what runs: no GPU is needed for that."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
from fake_onnxruntime import FakeOnnxRuntime, Session
from onnx import helper

from edge_vad.backends.base import load_backend
from edge_vad.backends.onnxruntime import MAX_BATCH, PROVIDERS, OnnxRuntime, providers
from edge_vad.errors import BackendError
from edge_vad.profile import Inference

CPU, CUDA, TENSORRT = PROVIDERS.values()
Install = Callable[..., FakeOnnxRuntime]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Puts a fake ONNX Runtime and an NVIDIA GPU into this machine."""

    def put(claimed: list[str], running: list[str], gpu: str = "NVIDIA Test 1", tensorrt: str = "100900") -> FakeOnnxRuntime:
        fake = FakeOnnxRuntime(claimed, running)
        monkeypatch.setitem(sys.modules, "onnxruntime", fake)  # type: ignore[arg-type]
        monkeypatch.setattr("edge_vad.backends.onnxruntime.gpu_name", lambda number: gpu)
        monkeypatch.setattr("edge_vad.backends.onnxruntime.tensorrt_version", lambda: tensorrt)
        return fake

    return put


def test_the_options_of_each_device() -> None:
    assert providers("cpu", "0", "fp32") == [(CPU, {})]
    assert providers("cuda", "1", "fp32") == [(CUDA, {"device_id": "1", "use_tf32": "0"})]
    engines = Path("/cache/gpu/model-fp16")
    assert providers("tensorrt", "2", "fp16", engines) == [
        (
            TENSORRT,
            {
                "device_id": "2",
                "trt_fp16_enable": "1",
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": "/cache/gpu/model-fp16",
                "trt_timing_cache_enable": "1",
                "trt_timing_cache_path": "/cache/gpu",
            },
        ),
        (CUDA, {"device_id": "2", "use_tf32": "0"}),
    ]
    assert providers("tensorrt", "0", "fp32")[0] == (TENSORRT, {"device_id": "0", "trt_fp16_enable": "0"})


@pytest.mark.parametrize(
    ("device", "running"), [("cuda:0", [CPU]), ("tensorrt:0", [CPU]), ("tensorrt:0", [CUDA, CPU])], ids=str
)
def test_what_claims_a_gpu_and_runs_elsewhere_is_an_error_that_says_so(
    device: str, running: list[str], install: Install, tmp_path: Path
) -> None:
    install([TENSORRT, CUDA, CPU], running)
    with pytest.raises(BackendError) as refused:
        OnnxRuntime(tiny.encoder_model(), device=device, cache=tmp_path)
    said = str(refused.value)
    assert device in said and ", ".join(running) in said and PROVIDERS[device.split(":")[0]] in said
    assert "device cpu" in said and "\n" not in said


def test_a_device_that_is_not_claimed_is_an_error_before_a_session_is_made(install: Install) -> None:
    fake = install([CPU], [CPU])
    with pytest.raises(BackendError, match="no tensorrt here: pip install onnxruntime-gpu"):
        OnnxRuntime(tiny.encoder_model(), device="tensorrt:0")
    assert not fake.sessions


@pytest.mark.parametrize(("device", "asked"), [("cuda", CUDA), ("cuda:3", CUDA), ("tensorrt:3", TENSORRT)])
def test_what_runs_where_it_was_asked_to_is_used(device: str, asked: str, install: Install, tmp_path: Path) -> None:
    fake = install([TENSORRT, CUDA, CPU], [TENSORRT, CUDA, CPU])
    OnnxRuntime(tiny.encoder_model(), device=device, cache=tmp_path)
    name, options = fake.sessions[0].wanted[0]
    assert name == asked and options["device_id"] == (device.partition(":")[2] or "0")


def engines_of(fake: FakeOnnxRuntime) -> Path:
    return Path(fake.sessions[-1].wanted[0][1]["trt_engine_cache_path"])


def test_an_engine_serves_one_model_gpu_version_and_precision_only(
    install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, tensorrt = [TENSORRT, CUDA], "tensorrt:0"
    other_model = tiny.model([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": [1, 3]}, {"y": [1, 3]})
    found = []
    for gpu, version, model, precision in (
        ("NVIDIA Test 1", "100900", tiny.encoder_model(), "fp32"),
        ("NVIDIA/../Test 2", "100900", tiny.encoder_model(), "fp32"),
        ("NVIDIA Test 1", "101000", tiny.encoder_model(), "fp32"),
        ("NVIDIA Test 1", "100900", other_model, "fp32"),
        ("NVIDIA Test 1", "100900", tiny.encoder_model(), "fp16"),
    ):
        fake = install(both, both, gpu, version)
        OnnxRuntime(model, device=tensorrt, precision=precision, cache=tmp_path)
        found.append(engines_of(fake))
    monkeypatch.setattr(FakeOnnxRuntime, "__version__", "2.0")
    fake = install(both, both)
    OnnxRuntime(tiny.encoder_model(), device=tensorrt, cache=tmp_path)
    found.append(engines_of(fake))
    assert len(set(found)) == 6
    assert all(path.is_dir() and path.parent.parent == tmp_path and path.stat().st_mode & 0o777 == 0o700 for path in found)
    again = install(both, both)
    OnnxRuntime(tiny.encoder_model(), device=tensorrt, cache=tmp_path)
    assert engines_of(again) == found[-1]


def test_a_first_build_is_announced_and_a_second_start_is_not(
    install: Install, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fake = install([TENSORRT, CUDA], [TENSORRT, CUDA])
    with caplog.at_level(logging.WARNING):
        OnnxRuntime(tiny.encoder_model(), device="tensorrt:0", cache=tmp_path)
        [record] = caplog.records
        assert "takes minutes" in record.getMessage() and str(tmp_path) in record.getMessage()
        (engines_of(fake) / "model_sm80.engine").touch()
        OnnxRuntime(tiny.encoder_model(), device="tensorrt:0", cache=tmp_path)
        assert len(caplog.records) == 1


def test_engines_of_tensorrt_are_built_for_all_batches_at_once(install: Install, tmp_path: Path) -> None:
    fake = install([TENSORRT, CUDA], [TENSORRT, CUDA])
    backend = OnnxRuntime(tiny.encoder_model(), device="tensorrt:0", cache=tmp_path)
    session = fake.sessions[0]
    pictures = np.random.default_rng(0).normal(0, 1, (2 * MAX_BATCH + 5, 3, 2, 2)).astype(np.float32)
    assert np.array_equal(backend.run({"image": pictures})["fine"], pictures)
    sizes = [n for n, *_ in session.batches]
    assert sizes == [1, MAX_BATCH, MAX_BATCH, MAX_BATCH, 5]
    assert np.array_equal(backend.run({"image": pictures[:7]})["fine"], pictures[:7])
    backend.run({"image": np.zeros((2, 3, 4, 4), np.float32)})
    assert [n for n, *_ in session.batches][5:] == [7, 1, MAX_BATCH, 2]


def test_a_batch_of_fixed_size_is_left_as_it_is(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Session, "shape", [1, 3, "h", "w"])
    fake = install([TENSORRT, CUDA], [TENSORRT, CUDA])
    OnnxRuntime(tiny.encoder_model(), device="tensorrt:0", cache=tmp_path).run({"image": np.zeros((1, 3, 4, 4))})
    assert fake.sessions[0].batches == [(1, 3, 4, 4)]


def test_tensorrt_refuses_integers_that_it_would_leave_to_cuda(install: Install, tmp_path: Path) -> None:
    install([TENSORRT, CUDA], [TENSORRT, CUDA])
    weights = {"scale": np.array(0.1, np.float32), "zero": np.array(3, np.uint8)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    quantised = tiny.model(nodes, weights, {"x": [1, 3]}, {"y": [1, 3]})
    with pytest.raises(BackendError, match="TensorRT takes symmetric INT8 only.*--precision fp32"):
        OnnxRuntime(quantised, device="tensorrt:0", cache=tmp_path)


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_fp16_that_onnxruntime_cannot_compute_is_an_error(device: str) -> None:
    with pytest.raises(BackendError, match=f"fp32 on {device.split(':')[0]}.*inference.precision"):
        load_backend(Inference(device=device, precision="fp16"))(tiny.encoder_model(), device=device)

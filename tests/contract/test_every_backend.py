"""What every backend must do, run over every module in the folder, and over the example of a backend of one's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from onnx import helper

from edge_vad.backends import Backend
from edge_vad.backends.base import load_backend
from edge_vad.errors import BackendError
from edge_vad.manifest import sha256
from edge_vad.plugins import available, load
from edge_vad.profile import Inference

PICTURES = np.random.default_rng(0).normal(0, 1, (3, 3, 32, 24)).astype(np.float32)


ROOT = Path(__file__).parents[2]
EXAMPLE = "custom_backend.accelerator"


@pytest.fixture(params=[*available("backends"), EXAMPLE])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Backend]:
    if request.param == EXAMPLE:  # it needs its vendor's package, and the model compiled
        monkeypatch.syspath_prepend(str(ROOT / "firmware_examples"))
        monkeypatch.syspath_prepend(str(ROOT / "tests" / "stand_in"))
        from npu_runtime import compile_model

        compiled = tmp_path / f"{sha256(tiny.encoder_model())}.npu"
        compiled.write_bytes(compile_model(tiny.encoder_model(), PICTURES))
        monkeypatch.setenv("COMPILED_MODELS", str(tmp_path))
    return load("backends", request.param, Backend)


def expected() -> dict[str, np.ndarray]:
    """The tiny encoder by hand: strided convolutions are products over blocks."""
    generator = np.random.default_rng(5)
    weights = [generator.normal(0, 0.3, shape).astype(np.float32) for shape in ((8, 3, 4, 4), (8, 8, 2, 2))]
    values, found = PICTURES, []
    for weight in weights:
        k = weight.shape[2]
        blocks = values.reshape(*values.shape[:2], values.shape[2] // k, k, values.shape[3] // k, k)
        values = np.maximum(np.einsum("ncyixj,ocij->noyx", blocks, weight), 0)
        found.append(values)
    return dict(zip(("fine", "coarse"), found, strict=True))


def test_the_outputs_are_those_computed_by_hand(backend: type[Backend]) -> None:
    runner = backend(tiny.encoder_model(), threads=1, device="cpu")
    found = runner.run({"image": PICTURES})
    assert set(runner.outputs) == set(found) == {"fine", "coarse"}
    for name, values in expected().items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values, atol=1e-4)


def test_a_batch_of_another_size_runs_too_and_earlier_outputs_stay(backend: type[Backend]) -> None:
    runner = backend(tiny.encoder_model(), threads=2)
    one = runner.run({"image": PICTURES})["coarse"]
    kept = one.copy()
    other = runner.run({"image": PICTURES[:1] + 1})["coarse"]
    assert other.shape == (1, 8, 4, 3)
    assert np.array_equal(one, kept)


@pytest.mark.parametrize("data", [b"", b"garbage", tiny.encoder_model()[:200]])
def test_bytes_that_are_no_model_are_refused(backend: type[Backend], data: bytes) -> None:
    with pytest.raises(BackendError, match=r"backend \w+ cannot load the model"):
        backend(data)


def test_a_wrong_input_is_a_backend_error(backend: type[Backend]) -> None:
    runner = backend(tiny.encoder_model())
    with pytest.raises(BackendError, match=r"backend \w+ failed"):
        runner.run({"picture": PICTURES})
    with pytest.raises(BackendError, match=r"backend \w+ failed"):
        runner.run({"image": PICTURES[:, :2]})


@pytest.mark.parametrize("device", ["tpu", "", "cuda:x", "cpu:zero", "cpu:0", "gpu:-1", "npu:"])
def test_an_unknown_device_is_refused_by_name(backend: type[Backend], device: str) -> None:
    with pytest.raises(BackendError, match=f"no device '{device}'"):
        backend(tiny.encoder_model(), device=device)


def test_every_kind_of_device_runs_the_model_or_is_an_error_that_names_it(backend: type[Backend]) -> None:
    assert "cpu" in backend.devices
    for kind in backend.devices:
        try:
            found = backend(tiny.encoder_model(), device=kind).run({"image": PICTURES})
        except BackendError as error:
            assert kind != "cpu" and kind in str(error) and "\n" not in str(error)
        else:
            np.testing.assert_allclose(found["coarse"], expected()["coarse"], rtol=0.02, atol=0.02)


def test_fp16_computes_in_fp16_or_is_an_error(backend: type[Backend]) -> None:
    """Never in fp32 or bfloat16 without a word."""
    try:
        found = load_backend(Inference(named(backend), precision="fp16"))(tiny.encoder_model()).run({"image": PICTURES})
    except BackendError as error:
        assert "inference.precision" in str(error)
        return
    for name, values in expected().items():
        assert found[name].dtype == np.float32
        error = np.abs(found[name] - values).max()
        assert 1e-5 < error < 0.02, "half precision shows, and not more than that"


def named(backend: type[Backend]) -> str:
    return backend.__module__.removeprefix("edge_vad.backends.")


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_cuda_without_cuda_is_an_error_and_never_a_silent_cpu_run(backend: type[Backend], device: str) -> None:
    ort = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in ort.get_available_providers() or torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(BackendError, match="cuda"):
        backend(tiny.encoder_model(), device=device)


def test_a_model_with_an_unknown_operator_is_refused(backend: type[Backend]) -> None:
    graph = helper.make_graph(
        [helper.make_node("Nonsense", ["image"], ["fine"], domain="example.org")],
        "foreign",
        [helper.make_tensor_value_info("image", 1, ["n", 3])],
        [helper.make_tensor_value_info("fine", 1, ["n", 3])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("example.org", 1)]
    foreign = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    with pytest.raises(BackendError):
        backend(foreign.SerializeToString())

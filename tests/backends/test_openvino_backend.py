"""OpenVINO's names of devices and what a model is compiled with; only the CPU is needed for that."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny

from edge_vad.backends.openvino import OpenVino, device_name, settings
from edge_vad.errors import BackendError

ONE_GPU, TWO_GPUS = ["CPU", "GPU", "NPU"], ["CPU", "GPU.0", "GPU.1"]


@pytest.mark.parametrize(
    ("device", "here", "name"),
    [
        ("cpu", ["CPU"], "CPU"),
        ("gpu", ONE_GPU, "GPU"),
        ("gpu:0", ONE_GPU, "GPU.0"),
        ("gpu", TWO_GPUS, "GPU"),
        ("gpu:1", TWO_GPUS, "GPU.1"),
        ("npu", ONE_GPU, "NPU"),
    ],
)
def test_devices_have_openvinos_names(device: str, here: list[str], name: str) -> None:
    assert device_name(device, here) == name


@pytest.mark.parametrize(("device", "here"), [("gpu", ["CPU"]), ("gpu:1", ONE_GPU), ("gpu:2", TWO_GPUS), ("npu", TWO_GPUS)])
def test_a_device_that_is_not_there_is_an_error_that_lists_those_that_are(device: str, here: list[str]) -> None:
    with pytest.raises(BackendError) as refused:
        device_name(device, here)
    assert repr(device) in str(refused.value) and ", ".join(here) in str(refused.value)


def test_a_model_is_compiled_with_what_its_device_knows(tmp_path: Path) -> None:
    assert settings("CPU", 2, "fp32", None) == {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 2,
        "NUM_STREAMS": 1,
    }
    assert settings("GPU.1", 2, "fp16", tmp_path) == {
        "INFERENCE_PRECISION_HINT": "f16",
        "NUM_STREAMS": 1,
        "CACHE_DIR": str(tmp_path),
    }
    assert settings("NPU", 2, "fp16", None) == {"INFERENCE_PRECISION_HINT": "f16"}


def test_nothing_is_kept_of_a_model_on_the_cpu(tmp_path: Path) -> None:
    OpenVino(tiny.encoder_model(), cache=tmp_path / "engines")
    assert not (tmp_path / "engines").exists()

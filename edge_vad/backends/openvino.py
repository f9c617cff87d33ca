"""OpenVINO as a backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_vad.backends.base import Backend, first_line, split_device
from edge_vad.engines import private_folder
from edge_vad.errors import BackendError
from edge_vad.plugins import require
from edge_vad.types import Float32

HINTS = {"fp32": "f32", "fp16": "f16"}


class OpenVino(Backend):
    """OpenVINO on a CPU, an Intel GPU or NPU, compiled from the bundle's ONNX model in memory."""

    package = "openvino"
    devices = ("cpu", "gpu", "npu")

    def __init__(
        self, model: bytes, *, threads: int = 1, device: str = "cpu", precision: str = "fp32", cache: Path | None = None
    ) -> None:
        openvino = require("openvino", self.package, "the backend openvino")
        core = openvino.Core()
        name = device_name(device, core.available_devices)
        folder = private_folder(cache, "openvino") if cache is not None and name.startswith("GPU") else None
        try:
            self._compiled = core.compile_model(core.read_model(model), name, settings(name, threads, precision, folder))
        except Exception as error:
            raise BackendError(f"backend openvino cannot load the model: {first_line(error)!r}") from error
        _check_precision(self._compiled, device, precision)
        self.outputs = tuple(output.get_any_name() for output in self._compiled.outputs)
        self._request = self._compiled.create_infer_request()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
        try:
            values = self._request.infer(dict(inputs), share_inputs=True)
        except Exception as error:
            raise BackendError(f"backend openvino failed: {first_line(error)!r}") from error
        return {name: np.array(value) for name, value in zip(self.outputs, values.values(), strict=True)}


def device_name(device: str, available: list[str]) -> str:
    """OpenVINO's name of ``cpu``, ``gpu``, ``gpu:1`` or ``npu``; BackendError lists what OpenVINO finds here."""
    kind, number = split_device("openvino", device, OpenVino.devices)
    name = f"{kind.upper()}.{number}" if number else kind.upper()
    # A single GPU is listed as GPU, several as GPU.0, GPU.1; GPU is then the first.
    if name not in available and f"{name}.0" not in available and not (number == "0" and kind.upper() in available):
        here = ", ".join(available) or "nothing"
        raise BackendError(
            f"backend openvino: no device {device!r} here (OpenVINO finds: {here}): install its driver, or use device cpu"
        )
    return name


def settings(name: str, threads: int, precision: str, cache: Path | None) -> dict[str, Any]:
    """What a model is compiled with for the device of that name; on an INT8 model the precision is of the other layers."""
    chosen: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[precision]}
    if name == "CPU":
        chosen["INFERENCE_NUM_THREADS"] = threads
    if not name.startswith("NPU"):
        chosen["NUM_STREAMS"] = 1
    if cache is not None:
        chosen["CACHE_DIR"] = str(cache)
    return chosen


def _check_precision(compiled: Any, device: str, precision: str) -> None:
    """OpenVINO takes a hint for one: some CPUs then compute in bfloat16, or in fp32, without a word."""
    found = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if found != HINTS[precision]:
        raise BackendError(
            f"backend openvino would compute in {found} on {device} where inference.precision asks for {precision}: "
            f"set inference.precision to {'fp32' if precision == 'fp16' else 'fp16'}"
        )

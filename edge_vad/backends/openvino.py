"""OpenVINO as a backend."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_vad.backends.base import Backend
from edge_vad.errors import BackendError
from edge_vad.plugins import require
from edge_vad.types import Float32


class OpenVino(Backend):
    """OpenVINO on a CPU, compiled from the bundle's ONNX model in memory."""

    package = "openvino"

    def __init__(self, model: bytes, *, threads: int = 1, device: str = "cpu") -> None:
        openvino = require("openvino", self.package, "the backend openvino")
        if device != "cpu":
            raise BackendError(f"backend openvino: no device {device!r} (known: cpu)")
        try:
            core = openvino.Core()
            network = core.read_model(model)
            settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
            self._compiled = core.compile_model(network, "CPU", settings)
        except Exception as error:
            raise BackendError(f"backend openvino cannot load the model: {str(error).strip()[:200]!r}") from error
        self.outputs = tuple(output.get_any_name() for output in self._compiled.outputs)
        self._request = self._compiled.create_infer_request()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
        try:
            values = self._request.infer(dict(inputs), share_inputs=True)
        except Exception as error:
            raise BackendError(f"backend openvino failed: {str(error).strip()[:200]!r}") from error
        return {name: np.array(value) for name, value in zip(self.outputs, values.values(), strict=True)}

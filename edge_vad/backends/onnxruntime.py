"""ONNX Runtime as a backend."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from edge_vad.backends.base import Backend
from edge_vad.errors import BackendError
from edge_vad.plugins import require
from edge_vad.types import Float32

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class OnnxRuntime(Backend):
    """ONNX Runtime on the CPU or CUDA, from bytes."""

    package = "onnxruntime"

    def __init__(self, model: bytes, *, threads: int = 1, device: str = "cpu") -> None:
        # Its Linux builds report to their maker from the import on; a device that watches people sends nothing anywhere.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        ort = require("onnxruntime", self.package, "the backend onnxruntime")
        kind, _, number = device.partition(":")
        if kind not in PROVIDERS or (number and not number.isdigit()):
            raise BackendError(f"backend onnxruntime: no device {device!r} (known: cpu, cuda:0)")
        if PROVIDERS[kind] not in ort.get_available_providers():
            raise BackendError(f"backend onnxruntime has no {kind} here: pip install onnxruntime-gpu, or use device cpu")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Spinning threads burn CPU time between frames and fight with other pools.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        provider: tuple[str, dict[str, str]] = (PROVIDERS[kind], {"device_id": number or "0"} if kind == "cuda" else {})
        try:
            self._session = ort.InferenceSession(model, options, providers=[provider])
        except Exception as error:
            raise BackendError(f"backend onnxruntime cannot load the model: {_first_line(error)}") from error
        # ONNX Runtime falls back to the CPU without a word; what was asked for must be what runs.
        if PROVIDERS[kind] not in self._session.get_providers():
            raise BackendError(f"backend onnxruntime has no {kind} here: pip install onnxruntime-gpu, or use device cpu")
        self.outputs = tuple(output.name for output in self._session.get_outputs())

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
        try:
            values = self._session.run(None, dict(inputs))
        except Exception as error:
            raise BackendError(f"backend onnxruntime failed: {_first_line(error)}") from error
        return dict(zip(self.outputs, values, strict=True))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__

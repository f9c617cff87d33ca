"""ONNX Runtime as a backend."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_vad.backends.base import Backend, first_line, split_device
from edge_vad.engines import gpu_name, private_folder, tensorrt_version
from edge_vad.errors import BackendError, BundleModelError
from edge_vad.manifest import sha256
from edge_vad.onnx_gate import check_model
from edge_vad.plugins import require
from edge_vad.types import Float32

log = logging.getLogger(__name__)

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
MAX_BATCH = 64  # pictures that a TensorRT engine takes at once; larger batches are split
N_KEY = 16  # characters of a hash in the name of a folder

Provider = tuple[str, dict[str, str]]


class OnnxRuntime(Backend):
    """ONNX Runtime on the CPU, CUDA or TensorRT, from bytes."""

    package = "onnxruntime"
    devices = ("cpu", "cuda", "tensorrt")

    def __init__(
        self, model: bytes, *, threads: int = 1, device: str = "cpu", precision: str = "fp32", cache: Path | None = None
    ) -> None:
        # Its Linux builds report to their maker from the import on; a device that watches people sends nothing anywhere.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        ort = require("onnxruntime", self.package, "the backend onnxruntime")
        kind, number = split_device("onnxruntime", device, self.devices)
        if precision == "fp16" and kind != "tensorrt":
            raise BackendError(
                f"backend onnxruntime computes in fp32 on {kind}: set inference.precision to fp32, or use tensorrt:0"
            )
        if PROVIDERS[kind] not in ort.get_available_providers():
            raise BackendError(f"backend onnxruntime has no {kind} here: pip install onnxruntime-gpu, or use device cpu")
        if kind != "cpu":
            _load_libraries(ort)
        folder = _engine_folder(ort, model, int(number or 0), precision, cache) if kind == "tensorrt" else None
        wanted = providers(kind, number or "0", precision, folder)
        try:
            self._session = ort.InferenceSession(model, session_options(ort, threads), providers=wanted)
        except Exception as error:
            raise BackendError(f"backend onnxruntime cannot load the model: {first_line(error)}") from error
        # ONNX Runtime falls back to the CPU without a word; what was asked for must be what runs.
        found = self._session.get_providers()
        if PROVIDERS[kind] not in found:
            raise BackendError(
                f"backend onnxruntime: {device} was asked for and {', '.join(found)} would run: ONNX Runtime could not load "
                f"{PROVIDERS[kind]} (a library of CUDA, cuDNN or TensorRT is missing or too old); or use device cpu"
            )
        self.outputs = tuple(output.name for output in self._session.get_outputs())
        self._builds = kind == "tensorrt"
        self._built: set[tuple[Any, ...]] = set()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
        try:
            values = self._run_built(dict(inputs)) if self._builds else self._session.run(None, dict(inputs))
        except Exception as error:
            raise BackendError(f"backend onnxruntime failed: {first_line(error)}") from error
        return dict(zip(self.outputs, values, strict=True))

    def _run_built(self, inputs: dict[str, np.ndarray]) -> list[Float32]:
        """On TensorRT, which builds an engine anew for every shape outside the range that it has seen.

        Of every picture size the smallest and the largest batch come first, so that none in between builds again at work.
        """
        model = [*self._session.get_inputs(), *self._session.get_outputs()]
        if len(inputs) != 1 or any(not value.shape or isinstance(value.shape[0], int) for value in model):
            return list(self._session.run(None, inputs))
        [(name, batch)] = inputs.items()
        if batch.shape[1:] not in self._built:
            for n in (1, MAX_BATCH):
                self._session.run(None, {name: np.zeros((n, *batch.shape[1:]), batch.dtype)})
            self._built.add(batch.shape[1:])
        parts = [self._session.run(None, {name: batch[i : i + MAX_BATCH]}) for i in range(0, max(len(batch), 1), MAX_BATCH)]
        return [np.concatenate(values) for values in zip(*parts, strict=True)]


def session_options(ort: Any, threads: int) -> Any:
    """Options of a session that shares a small device with other work."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads burn CPU time between frames and fight with other pools.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def providers(kind: str, number: str, precision: str, engines: Path | None = None) -> list[Provider]:
    """What ONNX Runtime is asked for, best first. engines: folder of TensorRT engines; None keeps none.

    Source: https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html
    """
    if kind == "cpu":
        return [(PROVIDERS["cpu"], {})]
    cuda: Provider = (PROVIDERS["cuda"], {"device_id": number, "use_tf32": "0"})
    if kind == "cuda":
        return [cuda]
    options = {"device_id": number, "trt_fp16_enable": "1" if precision == "fp16" else "0"}
    if engines is not None:
        options |= {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(engines),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(engines.parent),  # of kernels, whatever the model
        }
    return [(PROVIDERS["tensorrt"], options), cuda]  # CUDA runs the single operators that TensorRT does not know


def _engine_folder(ort: Any, model: bytes, number: int, precision: str, cache: Path | None) -> Path | None:
    """Where the engines of a model lie: one folder per GPU, versions, model and precision."""
    try:
        quantised = "QuantizeLinear" in check_model(model, "model").operators
    except BundleModelError as error:
        raise BackendError(f"backend onnxruntime cannot load the model: {error}") from error
    if quantised:  # it would run on CUDA, operator by operator
        raise BackendError(
            "backend onnxruntime: TensorRT takes symmetric INT8 only, which this model's is not: build the bundle with "
            "--precision fp32 (and set inference.precision: fp16), or use cuda:0"
        )
    if cache is None:
        return None
    gpu = f"{gpu_name(number)}-tensorrt{tensorrt_version()}-onnxruntime{ort.__version__}"
    folder = private_folder(cache, gpu, f"{sha256(model)[:N_KEY]}-{precision}")
    if not any(folder.glob("*.engine")):
        log.warning("TensorRT builds its engines for this device now: the first start takes minutes (kept in %s)", folder)
    return folder


def _load_libraries(ort: Any) -> None:
    """The CUDA libraries that pip installed, where this version of ONNX Runtime can find them; it prints what it lacks."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            ort.preload_dlls()
        log.debug("onnxruntime.preload_dlls: %s", said.getvalue().strip())

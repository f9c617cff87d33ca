"""A stand-in for the package of an accelerator's vendor: its compiler, its emulator and its chip, over ONNX Runtime.

As a real one it takes one picture (h, w, c) of the compiled size at a time, in bytes on the chip and in floats in the
emulator, and answers later: `run_async` gives a job, of which the queue takes four. There is a chip where the variable
NPU_CHIPS says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from dataclasses import dataclass
from typing import Any

import numpy as np

MAGIC = b"NPU1"
QUEUE = 4
LEVELS = 255


class Error(Exception):
    """Whatever the runtime complains of."""


@dataclass(frozen=True)
class Stream:
    """An input or output: value = (stored - zero) * scale."""

    name: str
    shape: tuple[int, int, int]
    dtype: type[np.generic]
    scale: float = 1.0
    zero: float = 0.0


def compile_model(onnx: bytes, pictures: np.ndarray) -> bytes:
    """A compiled file for the size of pictures (n, c, h, w) float32, which also give the ranges of inputs and outputs."""
    session = _session(onnx)
    [taken] = session.get_inputs()
    values = session.run(None, {taken.name: pictures})
    outputs = [_ranged(output.name, found) for output, found in zip(session.get_outputs(), values, strict=True)]
    return MAGIC + json.dumps([_ranged(taken.name, pictures), *outputs]).encode() + b"\n" + onnx


def _ranged(name: str, values: np.ndarray) -> dict[str, Any]:
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 1e-3)
    scale = (high - low) / LEVELS
    _, channels, height, width = values.shape
    return {"name": name, "shape": [height, width, channels], "scale": scale, "zero": round(-low / scale)}


def load(compiled: bytes, device: str) -> Model:
    """A compiled file on a device: ``emulator`` or ``npu:0``."""
    if device != "emulator" and device not in os.environ.get("NPU_CHIPS", "").split(","):
        raise Error(f"no chip {device} is connected")
    head, _, onnx = compiled.partition(b"\n")
    if not head.startswith(MAGIC):
        raise Error("not a compiled file")
    streams = [_stream(plain, device == "emulator") for plain in json.loads(head.removeprefix(MAGIC))]
    return Model(_session(onnx), streams[:1], streams[1:])


def _stream(plain: dict[str, Any], floats: bool) -> Stream:
    shape = tuple(plain["shape"])
    if floats:
        return Stream(plain["name"], shape, np.float32)
    return Stream(plain["name"], shape, np.uint8, plain["scale"], plain["zero"])


class Model:
    """A compiled file at work."""

    def __init__(self, session: Any, inputs: list[Stream], outputs: list[Stream]) -> None:
        self.inputs, self.outputs = inputs, outputs
        self.n_waiting = self.most_waiting = 0
        self._session = session
        self._chip = ThreadPoolExecutor(1)

    def run_async(self, inputs: Mapping[str, np.ndarray]) -> Job:
        """Take one picture; Error where it is not what was compiled for, or the queue is full."""
        [taken] = self.inputs
        value = inputs[taken.name]
        if value.shape != taken.shape or value.dtype != taken.dtype:
            raise Error(f"{taken.name} is {value.dtype} {value.shape}, compiled for {taken.dtype.__name__} {taken.shape}")
        if self.n_waiting == QUEUE:
            raise Error("the queue is full")
        self.n_waiting += 1
        self.most_waiting = max(self.most_waiting, self.n_waiting)
        return Job(self, self._chip.submit(self._run, value))

    def _run(self, value: np.ndarray) -> dict[str, np.ndarray]:
        [taken] = self.inputs
        image = (value.astype(np.float32) - np.float32(taken.zero)) * np.float32(taken.scale)
        values = self._session.run(None, {taken.name: image.transpose(2, 0, 1)[None]})
        return {stream.name: _stored(found[0], stream) for stream, found in zip(self.outputs, values, strict=True)}


class Job:
    """A picture on its way."""

    def __init__(self, model: Model, future: Future[dict[str, np.ndarray]]) -> None:
        self._model, self._future = model, future

    def wait(self, timeout_ms: int) -> dict[str, np.ndarray]:
        """The outputs (h, w, c) by name."""
        try:
            found = self._future.result(timeout_ms / 1000)
        except TooLate as error:
            raise Error(f"no answer within {timeout_ms} ms") from error
        self._model.n_waiting -= 1
        return found


def _stored(values: np.ndarray, stream: Stream) -> np.ndarray:
    values = values.transpose(1, 2, 0)
    if stream.dtype == np.float32:
        return values
    return np.clip(np.rint(values / stream.scale + stream.zero), 0, LEVELS).astype(stream.dtype)


def _session(onnx: bytes) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    try:
        return ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise Error(f"not an ONNX model: {error}") from error

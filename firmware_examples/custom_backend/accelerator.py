"""PYTHONPATH=firmware_examples edge-vad bundle check site.evb --set inference.backend=custom_backend.accelerator

A chip with its own compiler, as Hailo's or Coral's: it runs what was compiled from the bundle's ONNX model, one picture of
one size at a time, in bytes, from a queue. npu_runtime stands for its package. Device cpu is its emulator, in floats.
"""

import os
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_vad.backends.base import Backend, first_line, split_device
from edge_vad.errors import BackendError
from edge_vad.manifest import sha256
from edge_vad.plugins import require


class Accelerator(Backend):
    package, devices = "npu-runtime", ("cpu", "npu")
    n_queued, timeout_ms = 4, 2000

    def __init__(self, model: bytes, *, threads: int = 1, device: str = "cpu") -> None:
        kind, number = split_device("accelerator", device, self.devices)
        self._vendor = require("npu_runtime", self.package, "the backend accelerator")
        # By the hash of the verified model: another bundle's file is never taken for this one's.
        compiled = Path(os.environ.get("COMPILED_MODELS", "/etc/edge-vad/compiled")) / f"{sha256(model)}.npu"
        try:
            self._model = self._vendor.load(compiled.read_bytes(), f"npu:{number or 0}" if kind == "npu" else "emulator")
        except (OSError, self._vendor.Error) as error:
            raise BackendError(f"backend accelerator cannot load the model on {device}: {first_line(error)}") from error
        self.outputs = tuple(stream.name for stream in self._model.outputs)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        [taken] = self._model.inputs
        try:
            pictures = inputs[taken.name].transpose(0, 2, 3, 1)  # chips want (n, h, w, c)
            found = {stream.name: np.empty((len(pictures), *stream.shape), np.float32) for stream in self._model.outputs}
            for i, values in enumerate(self._queued(taken, pictures)):
                for stream in self._model.outputs:
                    found[stream.name][i] = (values[stream.name] - np.float32(stream.zero)) * np.float32(stream.scale)
        except (KeyError, self._vendor.Error) as error:
            raise BackendError(f"backend accelerator failed: {first_line(error)}") from error
        return {name: np.ascontiguousarray(values.transpose(0, 3, 1, 2)) for name, values in found.items()}

    def _queued(self, taken: Any, pictures: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        """Outputs in order: while the chip computes, the next pictures are quantised."""
        jobs: deque[Any] = deque()
        for picture in pictures:
            if len(jobs) == self.n_queued:
                yield jobs.popleft().wait(self.timeout_ms)
            value = picture / np.float32(taken.scale) + np.float32(taken.zero)
            if taken.dtype != np.float32:
                value = np.clip(np.rint(value), np.iinfo(taken.dtype).min, np.iinfo(taken.dtype).max).astype(taken.dtype)
            jobs.append(self._model.run_async({taken.name: np.ascontiguousarray(value)}))
        while jobs:
            yield jobs.popleft().wait(self.timeout_ms)

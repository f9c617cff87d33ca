"""PyTorch as a backend: the bundle's ONNX model as torch calls, on a CPU or an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_vad.backends.base import Backend, first_line, split_device
from edge_vad.errors import BackendError
from edge_vad.onnx_graph import read_graph
from edge_vad.plugins import require
from edge_vad.types import Float32

if TYPE_CHECKING:
    from torch import Tensor


class Torch(Backend):
    """PyTorch on the CPU or CUDA, from the bundle's ONNX bytes."""

    package = "torch"
    devices = ("cpu", "cuda")

    def __init__(
        self, model: bytes, *, threads: int = 1, device: str = "cpu", precision: str = "fp32", cache: Path | None = None
    ) -> None:
        """threads: of torch in this whole process, on the CPU. cache is not used: torch compiles nothing for a device."""
        self._torch = torch = require("torch", self.package, "the backend torch")
        kind, number = split_device("torch", device, self.devices)
        if kind == "cuda":
            _check_cuda(torch, int(number or 0))
            torch.backends.cudnn.benchmark = True  # the fastest kernels for each size, looked for when it is first seen
            torch.backends.cudnn.allow_tf32 = False  # fp32 is what was asked for; fp16 is what is fast
        else:
            torch.set_num_threads(threads)
        from edge_vad.backends._torch_network import Network

        self._device = torch.device(kind, int(number or 0)) if kind == "cuda" else torch.device("cpu")
        self.torch_device, self.precision = str(self._device), precision
        try:
            graph = read_graph(model, "model")
            dtype = torch.float16 if precision == "fp16" else torch.float32
            self._network = Network(graph, self._device, dtype)
        except Exception as error:
            raise BackendError(f"backend torch cannot load the model: {first_line(error)}") from error
        self.outputs = self._network.outputs

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Float32]:
        tensors = {name: self._torch.from_numpy(np.ascontiguousarray(value)) for name, value in inputs.items()}
        found = self.run_tensors(tensors)
        # A copy: an output can be a view of the input, or of a constant.
        return {name: np.array(value.float().cpu().numpy(), order="C") for name, value in found.items()}

    def run_tensors(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """`run` for callers that hold tensors on the device: what comes back lies there too, in the chosen precision.

        Raises BackendError when the model or the device fails.
        """
        try:
            return self._network(inputs)
        except Exception as error:
            raise BackendError(f"backend torch failed: {first_line(error)}") from error


def _check_cuda(torch: Any, number: int) -> None:
    """BackendError where torch has no such GPU, which says what to install."""
    if torch.version.cuda is None:
        raise BackendError(
            "backend torch has no cuda here: this torch is built for CPUs; pip install torch --index-url "
            "https://download.pytorch.org/whl/cu126 (on a Jetson: NVIDIA's own wheel), or use device cpu"
        )
    if not torch.cuda.is_available():
        raise BackendError("backend torch has no cuda here: no NVIDIA GPU or driver (see nvidia-smi), or use device cpu")
    if number >= torch.cuda.device_count():
        raise BackendError(
            f"backend torch: no device 'cuda:{number}': there are {torch.cuda.device_count()} (from cuda:0 on)"
        )

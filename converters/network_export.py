"""A trained network as an ONNX graph, checked against torch, and in fewer bits."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from edge_vad.converters.encoders import OPSET, quiet
from edge_vad.converters.half_precision import half_precision
from edge_vad.converters.quantisation import Calibration, Precision, quantize_model
from edge_vad.converters.system import System
from edge_vad.converters.torch_export import without_traces
from torch import Tensor, nn

from edge_vad.backends.base import Backend
from edge_vad.errors import NetworkError
from edge_vad.networks import FRAMES
from edge_vad.plugins import load, require
from edge_vad.types import Float32

log = logging.getLogger(__name__)

TOLERANCE = 1e-4  # of the graph's outputs against torch's, which lie in -1..1


class _Exported(nn.Module):
    """A system whose outputs come in a fixed order."""

    def __init__(self, system: System, outputs: list[str]) -> None:
        super().__init__()
        self.system = system
        self._outputs = outputs

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        found = self.system(frames)
        return tuple(found[name] for name in self._outputs)


def outputs_of(system: System, size: tuple[int, int]) -> list[str]:
    """The outputs that a system in eval mode has: an ablation may lack one."""
    with torch.inference_mode():
        return list(system(torch.zeros(1, system.n_frames, 3, size[1], size[0])))


def export_network(system: System, size: tuple[int, int]) -> bytes:
    """ONNX of a system in eval mode: frames (n, n_frames, 3, h, w) to its outputs, for pictures of ``size`` (width, height).

    Raises NetworkError where the graph does not compute what torch computes, within 1e-4.
    """
    require("onnxscript", "onnxscript", "exporting a network")
    outputs = outputs_of(system, size)
    exported = _Exported(system, outputs).eval()
    generator = np.random.default_rng(0)
    frames = generator.uniform(-1, 1, (2, system.n_frames, 3, size[1], size[0])).astype(np.float32)
    try:
        with quiet(), torch.inference_mode():
            program = torch.onnx.export(
                exported,
                (torch.from_numpy(frames),),
                dynamo=True,
                opset_version=OPSET,
                input_names=[FRAMES],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("n", min=1, max=1024)},),
                verbose=False,
            )
    except Exception as error:
        raise NetworkError(f"torch cannot export the network: {str(error).strip().splitlines()[0]}") from error
    model = bytes(without_traces(program.model_proto).SerializeToString(deterministic=True))
    _check(model, exported, outputs, frames)
    return model


def _check(model: bytes, exported: _Exported, outputs: list[str], frames: Float32) -> None:
    with torch.inference_mode():
        expected = dict(zip(outputs, exported(torch.from_numpy(frames)), strict=True))
    found = load("backends", "onnxruntime", Backend)(model).run({FRAMES: frames})
    for name in outputs:
        wanted = expected[name].numpy()
        error = float(np.abs(found[name] - wanted).max()) / max(1.0, float(np.abs(wanted).max()))
        if not error <= TOLERANCE:
            raise NetworkError(f"the exported graph differs from torch by {error:.2g} in {name!r} (allowed: {TOLERANCE:g})")


def reduce_network(model: bytes, precision: Precision, windows: Iterable[Float32], calibration: Calibration) -> bytes:
    """The network in another precision. windows: (1, n_frames, 3, h, w) float32 of normal footage, for INT8."""
    if precision == "fp32":
        return model
    onnx = require("onnx", "onnx", "a precision")
    loaded: Any = onnx.load_model_from_string(model)
    if precision == "fp16":
        reduced = half_precision(loaded, "the network")
    else:
        reduced = quantize_model(loaded, ({FRAMES: window} for window in windows), calibration)
    return bytes(reduced.SerializeToString(deterministic=True))

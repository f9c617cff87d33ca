"""A trained network as an ONNX graph, checked against torch, and in fewer bits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from edge_vad.converters.encoders import OPSET, quiet
from edge_vad.converters.half_precision import half_precision
from edge_vad.converters.quantisation import Calibration, Precision, quantize_network
from edge_vad.converters.system import System
from edge_vad.converters.torch_export import without_traces
from torch import Tensor, nn

from edge_vad.backends.base import Backend
from edge_vad.errors import NetworkError
from edge_vad.networks import FRAMES
from edge_vad.plugins import load, require
from edge_vad.types import Float32

log = logging.getLogger(__name__)

Part = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
TOLERANCE = 1e-4  # of the graph's outputs against torch's, which lie in -1..1
N_WINDOWS = 8
JUMP = 0.02  # where a memory's weights are cut off at a threshold, a rounding decides about those that lie on it


class _Exported(nn.Module):
    """A part of a system, whose inputs and outputs come in a fixed order."""

    def __init__(self, system: System, part: Part, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__()
        self.system = system
        self._part, self._inputs, self._outputs = part, inputs, outputs

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        found = self._part(dict(zip(self._inputs, values, strict=True)))
        return tuple(found[name] for name in self._outputs)


def outputs_of(system: System, size: tuple[int, int]) -> list[str]:
    """The outputs that a system in eval mode has on a device: an ablation may lack one."""
    with torch.inference_mode():
        found = system(torch.zeros(1, system.n_frames, 3, size[1], size[0]))
    return [name for name in found if name not in system.helpers]


def export_network(system: System, size: tuple[int, int]) -> bytes:
    """ONNX of a system in eval mode: frames (n, n_frames, 3, h, w) to its outputs, for pictures of ``size`` (width, height).

    Raises NetworkError where the graph does not compute what torch computes: within 1e-4, or, where torch is not continuous,
    as at the threshold of `SparseMemory`, within that in some windows and 0.02 in the others.
    """
    return _export(system, lambda found: system(found[FRAMES]), _windows(system, size))


def export_halves(system: System, size: tuple[int, int]) -> tuple[bytes, bytes]:
    """The same as two graphs, for a system with memories: up to their queries, and from what is read of them on."""
    frames = _windows(system, size)
    with torch.inference_mode():
        queries = system.encode(frames[FRAMES])
        read = {name: memory(queries[name])[0] for name, memory in system.memories.items()}
    encoder = _export(system, lambda found: system.encode(found[FRAMES]), frames)
    return encoder, _export(system, system.decode, queries | read)


def _windows(system: System, size: tuple[int, int]) -> dict[str, Tensor]:
    """Windows of noise."""
    shape = (N_WINDOWS, system.n_frames, 3, size[1], size[0])
    return {FRAMES: torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32))}


def _export(system: System, part: Part, inputs: dict[str, Tensor]) -> bytes:
    """ONNX of a part of a system, traced and checked on ``inputs`` by name."""
    require("onnxscript", "onnxscript", "exporting a network")
    with torch.inference_mode():
        expected = {name: value for name, value in part(inputs).items() if name not in system.helpers}
    outputs = list(expected)
    exported = _Exported(system, part, list(inputs), outputs).eval()
    batch = {0: torch.export.Dim("n", min=1, max=1024)}
    try:
        with quiet(), torch.inference_mode():
            program = torch.onnx.export(
                exported,
                tuple(inputs.values()),
                dynamo=True,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=outputs,
                dynamic_shapes=((batch,) * len(inputs),),
                verbose=False,
            )
    except Exception as error:
        raise NetworkError(f"torch cannot export the network: {str(error).strip().splitlines()[0]}") from error
    model = bytes(without_traces(program.model_proto).SerializeToString(deterministic=True))
    _check(model, expected, inputs)
    return model


def _check(model: bytes, expected: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> None:
    found = load("backends", "onnxruntime", Backend)(model).run({name: value.numpy() for name, value in inputs.items()})
    for name, values in expected.items():
        wanted = values.numpy()
        off = np.abs(found[name] - wanted).reshape(len(wanted), -1).max(axis=1) / max(1.0, float(np.abs(wanted).max()))
        if not (off.min() <= TOLERANCE and off.max() <= JUMP):
            raise NetworkError(
                f"the exported graph differs from torch by {off.max():.2g} in {name!r} (allowed: {TOLERANCE:g})"
            )


def reduce_network(
    model: bytes,
    precision: Precision,
    inputs: Iterable[dict[str, Float32]],
    calibration: Calibration,
    floats: Collection[str] = (),
) -> bytes:
    """The network in another precision. For INT8, inputs: of single runs on normal footage, by name; floats: outputs that
    stay as exact as they are."""
    if precision == "fp32":
        return model
    onnx = require("onnx", "onnx", "a precision")
    loaded: Any = onnx.load_model_from_string(model)
    half = precision == "fp16"
    reduced = half_precision(loaded, "the network") if half else quantize_network(loaded, iter(inputs), calibration, floats)
    return bytes(reduced.SerializeToString(deterministic=True))

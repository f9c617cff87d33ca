"""INT8 by NNCF, in a form that ONNX Runtime and OpenVINO both run in integers.

NNCF places quantizers where OpenVINO wants them. ONNX Runtime makes an integer operator only of one whose inputs and
outputs are all quantised, per tensor, as one type; for the others it computes in float and converts around them, slower
than fp32. So activations are quantised per tensor here, taps too, and all of them as uint8.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from edge_vad.converters.encoders import quiet

from edge_vad.errors import EncoderError
from edge_vad.plugins import require
from edge_vad.types import Float32, UInt8

PURPOSE = "quantizer nncf"

Enter = Callable[[UInt8], dict[str, Float32]]


def quantize_with_nncf(model: Any, pictures: Sequence[UInt8], enter: Enter, calibration: str) -> Any:
    """The ONNX model with weights int8 per channel and activations uint8 per tensor, and its biases corrected for both.

    pictures: batches (n, h, w, 3) uint8; enter: what the model takes for one; calibration: minmax or percentile (99.99).
    Raises MissingPackageError, and EncoderError where NNCF cannot quantise the model.
    """
    os.environ.setdefault("NNCF_CI", "1")  # its switch against reports to its maker; read at the import
    with quiet():
        nncf = require("nncf", "edge-vad[nncf]", PURPOSE)
        onnx = require("onnx", "onnx", PURPOSE)
        ends = _end_taps(onnx, model)
        try:
            quantised = _quantize(nncf, model, pictures, enter, calibration)
        except Exception as error:
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EncoderError(f"NNCF cannot quantise the encoder: {first}; use --quantizer onnxruntime") from error
    _open_taps(quantised, ends)
    _as_uint8(onnx, quantised)
    del quantised.graph.value_info[:]  # of the types before
    return quantised


def _quantize(nncf: Any, model: Any, pictures: Sequence[UInt8], enter: Enter, calibration: str) -> Any:
    ranges = require("nncf.quantization.range_estimator", "edge-vad[nncf]", PURPOSE).RangeEstimatorParametersSet
    parameters = require("nncf.quantization.advanced_parameters", "edge-vad[nncf]", PURPOSE)
    estimator = {"minmax": ranges.MEAN_MINMAX, "percentile": ranges.MEAN_QUANTILE}[calibration]
    return nncf.quantize(
        model,
        nncf.Dataset(pictures, enter),
        preset=nncf.QuantizationPreset.MIXED,
        target_device=nncf.TargetDevice.CPU,
        subset_size=len(pictures),
        fast_bias_correction=False,  # the fast one left out all depthwise layers of the default encoder
        advanced_parameters=parameters.AdvancedQuantizationParameters(
            quantize_outputs=True,
            activations_quantization_params=parameters.QuantizationParameters(per_channel=False),
            activations_range_estimator_params=estimator,
        ),
    )


def _end_taps(onnx: Any, model: Any) -> list[str]:
    """An Identity behind every tap, in front of which NNCF can quantise it; returns their names."""
    ends = []
    for output in model.graph.output:
        inner, end = f"{output.name}_inner", f"{output.name}_end"
        _rename(model, output.name, inner)
        model.graph.node.append(onnx.helper.make_node("Identity", [inner], [output.name], name=end))
        ends.append(end)
    return ends


def _open_taps(model: Any, ends: Sequence[str]) -> None:
    """Take the Identities away again."""
    for end in [node for node in model.graph.node if node.name in ends]:
        inner, tap = end.input[0], end.output[0]
        model.graph.node.remove(end)
        _rename(model, inner, tap)


def _rename(model: Any, old: str, new: str) -> None:
    for node in model.graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def _as_uint8(onnx: Any, model: Any) -> None:
    """Activations that are int8 as uint8: the zero point moves by 128, no value changes."""
    points = {node.input[2] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in model.graph.initializer:
        if tensor.name in points and tensor.data_type == onnx.TensorProto.INT8:
            moved = onnx.numpy_helper.to_array(tensor).astype(np.int16) + 128
            tensor.CopyFrom(onnx.numpy_helper.from_array(moved.astype(np.uint8), tensor.name))

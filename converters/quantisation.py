"""The precision of an encoder: INT8 by ONNX Runtime or by NNCF, fp16 weights; each compared with fp32."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from edge_vad.converters.encoders import OnnxEncoder, cosine, features, quiet
from edge_vad.converters.half_precision import half_precision
from edge_vad.converters.saturation import saturates

from edge_vad.errors import EncoderError
from edge_vad.features import Encoder, Preprocessing
from edge_vad.plugins import require
from edge_vad.types import Float32, UInt8

log = logging.getLogger(__name__)

Precision = Literal["int8", "fp16", "fp32"]
Calibration = Literal["minmax", "percentile", "entropy"]
Quantizer = Literal["onnxruntime", "nncf"]

NETWORK_OPERATORS = ("Add", "Clip", "Concat", "Conv", "DepthToSpace", "Relu")
MIN_COSINE = {"int8": 0.9, "fp16": 0.999}
PERCENTILE = 99.99  # of an activation's values that its range holds
# ONNX Runtime's own 128 bins leave the search for the least entropy one candidate; its time grows with the square of them.
ENTROPY_BINS = 512
# Histograms hold every value: pixels that are enough for them, 1,024 crops of 64 x 64.
MAX_HISTOGRAM_PIXELS = 2**22


def check_methods(quantizer: Quantizer, calibration: Calibration) -> None:
    """ValueError where NNCF is asked for a calibration that it does not have."""
    if quantizer == "nncf" and calibration == "entropy":
        raise ValueError("quantizer nncf has no entropy calibration; use minmax or percentile")


def reduce_precision(
    encoder: OnnxEncoder,
    precision: Literal["int8", "fp16"],
    batches: Iterable[UInt8],
    calibration: Calibration,
    quantizer: Quantizer,
) -> tuple[OnnxEncoder, float]:
    """The fp32 encoder in another precision, and the mean cosine of its features to fp32's.

    batches: pictures (n, h, w, 3) uint8 of normal footage; calibration, quantizer: of INT8. Raises what `quantize` and
    `fp16_weights` raise.
    """
    if precision == "int8":
        return quantize(encoder, batches, calibration, quantizer)
    return fp16_weights(encoder, batches)


def fp16_weights(encoder: OnnxEncoder, batches: Iterable[UInt8]) -> tuple[OnnxEncoder, float]:
    """Weights as fp16 and the mean cosine of the features to fp32's on pictures (n, h, w, 3) uint8.

    Raises EncoderError when fp16 does not hold the weights or loses the features (cosine under 0.999).
    """
    onnx = require("onnx", "onnx", "fp16 weights")
    pictures = _some(batches)
    _check_is_float(encoder)
    model = half_precision(onnx.load_model_from_string(encoder.model), "the encoder")
    return _compared(encoder, model, pictures, "fp16")


def quantize(
    encoder: OnnxEncoder,
    batches: Iterable[UInt8],
    calibration: Calibration = "minmax",
    quantizer: Quantizer = "onnxruntime",
) -> tuple[OnnxEncoder, float]:
    """INT8 (QDQ, weights per channel) with calibration pictures (n, h, w, 3) uint8 of normal footage.

    calibration: how the range of an activation is read off them: minmax (means of the minima and maxima of the batches),
    percentile, entropy (least Kullback-Leibler divergence; not with NNCF). Returns the encoder and the mean cosine of its
    features to fp32's on those pictures. Raises EncoderError when INT8 loses the features (cosine under 0.9),
    MissingPackageError, and ValueError for what the quantizer does not have.
    """
    check_methods(quantizer, calibration)
    onnx = require("onnx", "onnx", "INT8 quantisation")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # its Linux builds report to their maker from the import on
    pictures = _some(batches)
    _check_is_float(encoder)
    model = onnx.load_model_from_string(encoder.model)
    name = encoder.preprocessing.input_name
    chosen = pictures if calibration == "minmax" else _few(pictures)

    def enter(batch: UInt8) -> dict[str, Float32]:
        return {name: _planes(encoder.preprocessing, batch)}

    if quantizer == "nncf":
        from edge_vad.converters.nncf_quantisation import quantize_with_nncf

        quantised = quantize_with_nncf(model, chosen, enter, calibration)
    else:
        quantised = quantize_model(model, map(enter, chosen), calibration)
    onnx.helper.set_model_props(quantised, {p.key: p.value for p in model.metadata_props})
    return _compared(encoder, quantised, pictures, "int8")


def _some(batches: Iterable[UInt8]) -> list[UInt8]:
    pictures = list(batches)
    if not pictures:
        raise EncoderError("no calibration pictures: nothing moves in the normal footage; film while it is in use")
    return pictures


def _few(pictures: Sequence[UInt8]) -> list[UInt8]:
    """Every n-th batch, so that all of them together have MAX_HISTOGRAM_PIXELS at most (or are one)."""
    pixels = sum(len(batch) * batch.shape[1] * batch.shape[2] for batch in pictures)
    step = -(-pixels // MAX_HISTOGRAM_PIXELS)
    if step > 1:
        log.info("every %d. batch of the calibration pictures is used: histograms of all would take minutes", step)
    return list(pictures[::step])


def _check_is_float(encoder: OnnxEncoder) -> None:
    onnx = require("onnx", "onnx", "a precision")
    if any(node.op_type == "QuantizeLinear" for node in onnx.load_model_from_string(encoder.model).graph.node):
        raise EncoderError("the encoder is INT8 already; use it with --precision fp32, which leaves it as it is")


def _compared(fp32: OnnxEncoder, model: Any, pictures: Sequence[UInt8], precision: str) -> tuple[OnnxEncoder, float]:
    """The model as an encoder, and the mean cosine of its features to fp32's."""
    data = model.SerializeToString(deterministic=True)
    cosines = [
        cosine(a, b)
        for batch in pictures
        for a, b in zip(
            features(fp32.model, fp32.preprocessing, batch), features(data, fp32.preprocessing, batch), strict=True
        )
    ]
    mean = float(np.mean(cosines))
    if not mean >= MIN_COSINE[precision]:
        raise EncoderError(f"{precision.upper()} changes the features too much (cosine {mean:.3f}); use --precision fp32")
    return OnnxEncoder(data, fp32.preprocessing, fp32.licence), mean


def quantize_network(
    model: Any, inputs: Iterator[dict[str, Float32]], calibration: Calibration, floats: Collection[str] = ()
) -> Any:
    """INT8 of a trained network: the convolutions that make pictures or queries. inputs: as of `quantize_model`.

    Its transposed convolutions are half of its time and become convolutions. In floats stay memories, whose shares of
    hundreds of items are smaller than 1 / 255, and what leads to a number only, whose rounding no mean evens out, or to the
    outputs ``floats``.
    """
    from edge_vad.converters.subpixel import without_transposed

    made = without_transposed(model)
    maps = {o.name for o in made.graph.output if len(o.type.tensor_type.shape.dim) >= 4 and o.name not in floats}
    for node in reversed(made.graph.node):
        if maps.intersection(node.output):
            maps.update(node.input)
    numbers = [node.name for node in made.graph.node if not maps.intersection(node.output)]
    return quantize_model(made, inputs, calibration, NETWORK_OPERATORS, numbers)


def quantize_model(
    model: Any,
    inputs: Iterator[dict[str, Float32]],
    calibration: Calibration,
    operators: Sequence[str] | None = None,
    excluded: Sequence[str] = (),
) -> Any:
    """Static quantisation by ONNX Runtime: activations uint8 per tensor, weights int8 per channel; 7 bits of them on a
    processor that would lose sums of 8 (`saturates`), where the features of the memory come from.

    inputs: of normal footage, by the name of the graph's input. operators: that are quantised, all that can be by default.
    excluded: names of nodes that stay in floats. The steps of ONNX Runtime's `quantize_static`, which keeps all histogram
    values in memory and has no `num_bins`.
    """
    seven_bits = saturates()
    if seven_bits:
        log.warning("this processor has no VNNI: INT8 weights get 7 bits, so that devices compute what is computed here")
    with quiet():
        return _quantize_with_onnxruntime(model, inputs, calibration, operators, excluded, seven_bits)


def _quantize_with_onnxruntime(
    model: Any,
    inputs: Iterator[dict[str, Float32]],
    calibration: Calibration,
    operators: Sequence[str] | None,
    excluded: Sequence[str],
    seven_bits: bool,
) -> Any:
    onnx = require("onnx", "onnx", "INT8 quantisation")
    quantization = require("onnxruntime.quantization", "onnxruntime", "INT8 quantisation")
    registry = require("onnxruntime.quantization.registry", "onnxruntime", "INT8 quantisation")
    operators = operators or sorted({*registry.QLinearOpsRegistry, *registry.QDQRegistry})
    ranges = _ranges(onnx, quantization, model, inputs, calibration, operators)
    quantizer = quantization.QDQQuantizer(
        onnx.shape_inference.infer_shapes(model),
        per_channel=True,
        reduce_range=seven_bits,
        weight_qType=quantization.QuantType.QInt8,
        activation_qType=quantization.QuantType.QUInt8,
        tensors_range=ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=list(excluded),
        op_types_to_quantize=list(operators),
        extra_options={},
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def _ranges(
    onnx: Any,
    quantization: Any,
    model: Any,
    inputs: Iterator[dict[str, Float32]],
    calibration: Calibration,
    operators: Sequence[str],
) -> Any:
    """The range of every activation."""
    kinds = quantization.CalibrationMethod
    method, options = {
        # The mean keeps the features closer than plain minima and maxima.
        "minmax": (kinds.MinMax, {"moving_average": True}),
        "percentile": (kinds.Percentile, {"percentile": PERCENTILE, "symmetric": False}),
        "entropy": (kinds.Entropy, {"num_bins": ENTROPY_BINS}),
    }[calibration]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "fp32.onnx"
        onnx.save(model, path)
        made = Path(folder) / "calibration.onnx"
        calibrator = quantization.create_calibrator(path, operators, str(made), method, extra_options=options)
        if calibration == "minmax":
            calibrator.collect_data(_reader(quantization, inputs))
        else:
            for one in inputs:  # it holds every value of what it is given at once
                calibrator.collect_data(_reader(quantization, iter([one])))
        return calibrator.compute_data()


def _reader(quantization: Any, left: Iterator[dict[str, Float32]]) -> Any:
    class Reader(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, Float32] | None:
            return next(left, None)

    return Reader()


def _planes(preprocessing: Preprocessing, pictures: UInt8) -> Float32:
    """What the runtime's `Encoder` hands to its backend."""
    caught: list[Float32] = []

    class Catcher:
        def run(self, inputs: dict[str, Float32]) -> dict[str, Float32]:
            caught.extend(inputs.values())
            return dict.fromkeys(preprocessing.taps, np.zeros((len(pictures), 1, 1, 1), dtype=np.float32))

    Encoder(Catcher(), preprocessing)(pictures)  # type: ignore[arg-type]
    return caught[0]

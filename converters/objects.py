"""An object detector's ONNX file, made fit for a bundle: input size set, output layout recognised, weights as fp16."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from edge_vad.converters.half_precision import half_precision

from edge_vad.errors import EncoderError
from edge_vad.object_detector import ObjectSettings
from edge_vad.plugins import require

ENLARGE = 4 / 3  # detectors are trained on larger objects than a surveillance picture shows
MULTIPLE = 32


def load_object_detector(path: Path, width: int, height: int) -> tuple[bytes, ObjectSettings]:
    """Model bytes and settings for working pictures of width x height pixels. Raises EncoderError.

    Known output layouts: YOLOX raw (1, N, 5 + classes), YOLOv5 decoded (the same shape, sizes in pixels), YOLOv8/11
    decoded (1, 4 + classes, N).
    """
    onnx = require("onnx", "onnx", "an object detector")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise EncoderError(f"{path}: the detector cannot be read: {error.strerror}") from error
    except Exception as error:
        raise EncoderError(f"{path}: not a valid ONNX model; export it again") from error
    shape = model.graph.input[0].type.tensor_type.shape.dim
    if len(shape) != 4 or len(model.graph.output) < 1:
        raise EncoderError(f"{path}: an object detector takes one picture (1, 3, H, W)")
    size = _round(width * ENLARGE), _round(height * ENLARGE)
    head, kept = _reshaped(model, size, path)
    settings = ObjectSettings(model.graph.input[0].name, model.graph.output[0].name, head, kept)
    return half_precision(model, str(path)).SerializeToString(deterministic=True), settings


def _round(value: float) -> int:
    return max(MULTIPLE, round(value / MULTIPLE) * MULTIPLE)


def _reshaped(model: Any, size: tuple[int, int], path: Path) -> tuple[Literal["yolox", "yolov5", "yolov8"], tuple[int, int]]:
    """Set the input size where the graph takes another than its own; returns the layout and the size that runs."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    own = (dims[3].dim_value, dims[2].dim_value)
    output = _run(model, size)
    if output is None and all(own):
        size, output = own, _run(model, own)
    if output is None or output.ndim != 3:
        raise EncoderError(
            f"{path}: does not run on {size[0]}x{size[1]} pictures as a YOLO detector; export it with a dynamic size"
        )
    del model.graph.output[1:]
    n_cells = sum((size[0] // s) * (size[1] // s) for s in (8, 16, 32))
    if output.shape[2] == n_cells:
        return "yolov8", size
    if output.shape[1] == n_cells:
        return "yolox", size
    if output.shape[1] == 3 * n_cells:
        return "yolov5", size
    raise EncoderError(f"{path}: output {output.shape} is none of the known layouts (YOLOX, YOLOv5, YOLOv8/11)")


def _run(model: Any, size: tuple[int, int]) -> np.ndarray | None:
    """The first output for a grey picture, with the model's input set to ``size``; None when it does not run."""
    ort = require("onnxruntime", "onnxruntime", "an object detector")
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, value in zip(dims, (1, 3, size[1], size[0]), strict=True):
        dim.dim_value = value
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    picture = np.full((1, 3, size[1], size[0]), 114, dtype=np.float32)
    try:
        options = ort.SessionOptions()
        options.log_severity_level = 4
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        output = np.asarray(session.run(None, {session.get_inputs()[0].name: picture})[0])
    except Exception:
        return None
    for value in output.shape:  # a bundle's model says what it gives
        model.graph.output[0].type.tensor_type.shape.dim.add().dim_value = value
    return output

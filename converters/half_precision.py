"""fp16 weights: half the bytes of a network, computed in fp32 by every runtime."""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_vad.errors import EncoderError
from edge_vad.plugins import require

MIN_ELEMENTS = 256  # smaller constants stay as they are: biases, scales, bounds


def half_precision(model: Any, what: str) -> Any:
    """Store large float32 weights of an ONNX model as fp16 with a Cast to float32 behind each, which runtimes fold at load.

    Raises EncoderError, which names ``what`` the model is, where a weight is beyond what fp16 holds (65,504).
    """
    onnx = require("onnx", "onnx", "fp16 weights")
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < MIN_ELEMENTS:
            continue
        name = tensor.name
        with np.errstate(over="ignore"):
            values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(values).all():
            raise EncoderError(
                f"{what}: the weights {name!r} are beyond what fp16 holds; an encoder can stay fp32: --precision fp32"
            )
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, name + "_fp16"))
        casts.append(onnx.helper.make_node("Cast", [name + "_fp16"], [name], to=onnx.TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(casts + nodes)
    return model

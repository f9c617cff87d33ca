"""Whether this processor adds up INT8 products in 16 bits, and so loses what is larger.

x86-64 without VNNI multiplies pairs of uint8 and int8 into one 16-bit sum (VPMADDUBSW), which ends at 32,767: weights near
their largest values give other results there than on every other processor. Weights of 7 bits never get that far.
"""

from __future__ import annotations

import numpy as np

from edge_vad.plugins import require

LENGTH = 16
LARGEST = (255, 127)


def saturates() -> bool:
    """Asked of ONNX Runtime itself: the largest activations times the largest weights."""
    onnx = require("onnx", "onnx", "INT8 quantisation")
    onnxruntime = require("onnxruntime", "onnxruntime", "INT8 quantisation")
    activation, weight = LARGEST
    weights = onnx.numpy_helper.from_array(np.full((LENGTH, LENGTH), weight, np.int8), "w")
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "sums",
        [value("x", onnx.TensorProto.UINT8, [LENGTH, LENGTH])],
        [value("y", onnx.TensorProto.INT32, [LENGTH, LENGTH])],
        [weights],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    [sums] = session.run(None, {"x": np.full((LENGTH, LENGTH), activation, np.uint8)})
    return bool((sums != LENGTH * activation * weight).any())

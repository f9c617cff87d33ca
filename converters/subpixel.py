"""Transposed convolutions as convolutions: the same numbers, by operators that have integer kernels.

ONNX Runtime has no integer kernel for ConvTranspose on a CPU: in an INT8 graph it computes in floats, between a conversion
there and one back. A transposed convolution with stride s is a convolution to s x s times the channels, whose pictures are
then interleaved (Shi et al., "Is the deconvolution layer the same as a convolutional layer?", arXiv:1609.07009). In fp32 the
transposed one is faster.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edge_vad.plugins import require
from edge_vad.types import Float32


def without_transposed(model: Any) -> Any:
    """An ONNX model whose 2-D transposed convolutions by whole strides are convolutions; others stay. Not in place."""
    onnx = require("onnx", "onnx", "INT8 quantisation")
    made = type(model)()
    made.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in made.graph.initializer}
    nodes: list[Any] = []
    for node in made.graph.node:
        taps = _taps(onnx, node, weights)
        nodes += [node] if taps is None else _convolved(onnx, made.graph, node, weights, *taps)
    _before_interleaving(nodes, {output.name for output in made.graph.output})
    used = {name for node in nodes for name in node.input}
    _replace(made.graph.node, nodes)
    _replace(made.graph.initializer, [tensor for tensor in made.graph.initializer if tensor.name in used])
    del made.graph.value_info[:]  # of tensors that are gone
    return made


def _taps(onnx: Any, node: Any, weights: dict[str, Any]) -> tuple[int, list[int], Float32] | None:
    """Stride, padding before and weights (c_in, c_out, k, k) of what can be a convolution; None for anything else."""
    if node.op_type != "ConvTranspose" or node.input[1] not in weights:
        return None
    found = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    kernel = onnx.numpy_helper.to_array(weights[node.input[1]])
    if kernel.ndim != 4 or found.get("auto_pad", b"NOTSET") != b"NOTSET" or "output_shape" in found:
        return None
    strides, pads = found.get("strides", [1, 1]), found.get("pads", [0] * 4)
    more, dilations = found.get("output_padding", [0, 0]), found.get("dilations", [1, 1])
    enlarges = all(
        kernel.shape[2 + i] > pads[i] and kernel.shape[2 + i] + more[i] - pads[i] - pads[2 + i] == strides[i] for i in (0, 1)
    )
    if not enlarges or strides[0] != strides[1] or found.get("group", 1) != 1 or any(d != 1 for d in dilations):
        return None
    return strides[0], list(pads[:2]), kernel


def _convolved(
    onnx: Any, graph: Any, node: Any, weights: dict[str, Any], stride: int, pads: list[int], kernel: Float32
) -> list[Any]:
    """A convolution and the interleaving of its pictures; what it needs is added to the graph."""
    name = node.output[0]
    made, before, after = subpixel_kernel(kernel, stride, pads)
    inputs = [node.input[0], f"{name}_kernel"]
    graph.initializer.append(onnx.numpy_helper.from_array(made, inputs[1]))
    if len(node.input) > 2:
        bias = np.repeat(onnx.numpy_helper.to_array(weights[node.input[2]]), stride**2)
        inputs.append(f"{name}_bias")
        graph.initializer.append(onnx.numpy_helper.from_array(bias, inputs[2]))
    sides = {"kernel_shape": made.shape[2:], "pads": [*before, *after]}
    helper = onnx.helper
    return [
        helper.make_node("Conv", inputs, [f"{name}_apart"], f"{name}_convolution", **sides),
        helper.make_node("DepthToSpace", [f"{name}_apart"], [name], f"{name}_interleave", blocksize=stride, mode="CRD"),
    ]


def subpixel_kernel(kernel: Float32, stride: int, pads: list[int]) -> tuple[Float32, list[int], list[int]]:
    """Weights (c_out s s, c_in, h, w) of a convolution, and its padding before and after, for transposed ones
    (c_in, c_out, k, k).

    Input i falls on the outputs y = s i + t - p for every tap t. So the output s j + a takes tap a + p - s d of input j + d.
    """
    n_in, n_out = kernel.shape[:2]
    reach = [
        range(-((k - 1 - p) // stride), (stride - 1 + p) // stride + 1) for k, p in zip(kernel.shape[2:], pads, strict=True)
    ]
    made = np.zeros((n_out, stride, stride, n_in, *map(len, reach)), dtype=np.float32)
    for a, b in np.ndindex(stride, stride):
        for (y, dy), (x, dx) in ((v, h) for v in enumerate(reach[0]) for h in enumerate(reach[1])):
            row, column = a + pads[0] - stride * dy, b + pads[1] - stride * dx
            if 0 <= row < kernel.shape[2] and 0 <= column < kernel.shape[3]:
                made[:, a, b, :, y, x] = kernel[:, :, row, column].T
    return made.reshape(n_out * stride**2, n_in, *map(len, reach)), [-r[0] for r in reach], [r[-1] for r in reach]


def _before_interleaving(nodes: list[Any], outputs: set[str]) -> None:
    """A rectifier behind an interleaving comes before it: it becomes part of the convolution, whose range it halves."""
    readers: dict[str, list[Any]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in nodes:
        behind = readers.get(node.output[0], [])
        if (
            node.op_type == "DepthToSpace"
            and len(behind) == 1
            and behind[0].op_type == "Relu"
            and node.output[0] not in outputs
        ):
            kinds = [(item.op_type, item.name, list(item.attribute)) for item in (node, behind[0])]
            for item, (kind, name, attributes) in zip((behind[0], node), kinds, strict=True):
                item.op_type, item.name = kind, name
                _replace(item.attribute, attributes)


def _replace(field: Any, values: list[Any]) -> None:
    """New content of a repeated field of a message."""
    kept = [type(value)() for value in values]
    for copy, value in zip(kept, values, strict=True):
        copy.CopyFrom(value)
    del field[:]
    field.extend(kept)

"""The reader of ONNX graphs finds what the onnx package finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from onnx import TensorProto, helper, numpy_helper
from small_graphs import CASES, Case, model_of

from edge_vad.errors import BundleModelError
from edge_vad.onnx_graph import read_graph

TYPES = ["FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "BOOL", "FLOAT16", "DOUBLE", "UINT32", "UINT64"]


def plain(value: Any) -> Any:
    """An attribute's value as the reader gives it."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value).tolist()
    return value.decode() if isinstance(value, bytes) else value


def check_against_onnx(data: bytes) -> None:
    graph, expected = read_graph(data, "model"), onnx.load_model_from_string(data)
    assert graph.opset == expected.opset_import[0].version
    assert graph.outputs == tuple(value.name for value in expected.graph.output)
    assert graph.constants.keys() == {tensor.name for tensor in expected.graph.initializer}
    for tensor in expected.graph.initializer:
        found, values = graph.constants[tensor.name], numpy_helper.to_array(tensor)
        assert found.dtype == values.dtype and found.shape == values.shape and np.array_equal(found, values)
    for node, wanted in zip(graph.nodes, expected.graph.node, strict=True):
        assert (node.kind, node.inputs, node.outputs) == (wanted.op_type, tuple(wanted.input), tuple(wanted.output))
        found = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in node.attributes.items()}
        assert found == {a.name: plain(helper.get_attribute_value(a)) for a in wanted.attribute}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nodes_and_attributes(case: Case) -> None:
    check_against_onnx(model_of(case))


def test_the_default_encoder(lite0: Path) -> None:
    check_against_onnx(lite0.read_bytes())


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_constants_of_every_type_in_both_encodings(kind: str, raw: bool) -> None:
    number = getattr(TensorProto, kind)
    low = 0 if kind.startswith("U") or kind == "BOOL" else -2
    values = np.array([[low, 0], [1, 1 if kind == "BOOL" else 100]]).astype(helper.tensor_dtype_to_np_dtype(number))
    tensor = helper.make_tensor("c", number, (2, 2), values.tobytes() if raw else values.ravel(), raw=raw)
    nodes = [helper.make_node("Cast", ["c"], ["f"], to=1), helper.make_node("Add", ["x", "f"], ["y"])]
    made = onnx.load_model_from_string(tiny.model(nodes[1:], {"f": np.zeros(2, np.float32)}, {"x": [2]}, {"y": [2]}))
    del made.graph.initializer[:]
    made.graph.initializer.append(tensor)
    made.graph.node.insert(0, nodes[0])
    check_against_onnx(made.SerializeToString())


def test_what_the_gate_refuses_is_not_read() -> None:
    with pytest.raises(BundleModelError, match="not an ONNX model"):
        read_graph(b"garbage", "somewhere")

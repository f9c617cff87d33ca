"""The gate on ONNX bytes: good models pass with the right summary, and no bytes make it fail in another way.

What it refuses is in test_attack_files.py.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from edge_vad.converters.encoders import load_encoder
from edge_vad.converters.quantisation import quantize
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edge_vad.errors import BundleModelError
from edge_vad.onnx_gate import MAX_ELEMENTS, MAX_ENLARGE, MAX_NODES, OPERATORS, Summary, check_model

YOLOX = Path(__file__).parents[2] / "shared" / "models" / "yolox-nano" / "yolox_nano.onnx"
node = helper.make_node


def according_to_onnx(model: bytes) -> Summary:
    """What the onnx package says of a model."""
    graph = onnx.load_model_from_string(model).graph
    constants = {tensor.name for tensor in graph.initializer}

    def shapes(values: Any) -> dict[str, tuple[int, ...]]:
        dims = {v.name: v.type.tensor_type.shape.dim for v in values if v.name not in constants}
        return {name: tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dim) for name, dim in dims.items()}

    operators = tuple(sorted({n.op_type for n in graph.node}))
    return Summary(shapes(graph.input), shapes(graph.output), operators)


def accepted(model: bytes) -> Summary:
    """The model passes, and the summary is the onnx package's."""
    onnx.checker.check_model(onnx.load_model_from_string(model))
    summary = check_model(model, "x")
    assert summary == according_to_onnx(model)
    return summary


def network(*nodes: Any, **constants: np.ndarray) -> bytes:
    return tiny.model(nodes, constants, {"image": [1, 3, 8, 8]}, {"tap": ["n", "c", "h", "w"]})


# Good models


def test_the_tiny_encoder() -> None:
    summary = accepted(tiny.encoder_model())
    assert summary.inputs == {"image": (-1, 3, -1, -1)}
    assert summary.outputs == {"fine": (-1, 8, -1, -1), "coarse": (-1, 8, -1, -1)}
    assert summary.operators == ("Conv", "Relu")


def test_the_default_encoder_and_its_int8_form(lite0: Path) -> None:
    summary = accepted(lite0.read_bytes())
    assert list(summary.inputs.values()) == [(-1, 3, -1, -1)]
    pictures = np.stack([frame.image[:96, :96] for frame in tiny.clip_frames(4)])
    quantised, _ = quantize(load_encoder(str(lite0)), [pictures])
    smaller = accepted(quantised.model)
    assert {"QuantizeLinear", "DequantizeLinear"} <= set(smaller.operators)
    assert (smaller.inputs, list(smaller.outputs)) == (summary.inputs, list(summary.outputs))


def test_a_yolox_detector() -> None:
    if not YOLOX.exists():
        pytest.skip(f"the detector's weights are not part of the repository, and {YOLOX} is not there")
    assert accepted(YOLOX.read_bytes()).inputs == {"images": (1, 3, 416, 416)}


@pytest.mark.parametrize("kind", ["float32", "float16", "float64", "int8", "uint8", "int32", "int64", "uint64", "bool"])
@pytest.mark.parametrize("form", ["raw", "typed"])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 3), (5, 5, 5)])
def test_constants_in_every_encoding_pass(kind: str, form: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind)
    tensor = numpy_helper.from_array(array, "c")
    if form == "typed":
        tensor = helper.make_tensor("c", tensor.data_type, shape, array.reshape(-1))
        assert not tensor.raw_data
    model = onnx.load_model_from_string(network(node("Relu", ["image"], ["tap"])))
    model.graph.initializer.append(tensor)
    accepted(model.SerializeToString())
    assert np.array_equal(numpy_helper.to_array(tensor), array)


@pytest.mark.parametrize("n", [0, 1, 3, 5, 63, 64, 65, 1000])
@pytest.mark.parametrize("kind", ["float32", "int64", "float64"])
def test_typed_values_are_counted_like_the_onnx_package_does(n: int, kind: str) -> None:
    """The number of values is right, one too many or one too few; large and negative ones take up to ten bytes."""
    values = np.random.default_rng(n).integers(-(2**62), 2**62, n + 1) if kind == "int64" else np.ones(n + 1)
    for given_values, holds in [(n, True), (n + 1, False), (n - 1, n == 0)]:
        model = onnx.load_model_from_string(network(node("Relu", ["image"], ["tap"])))
        tensor = model.graph.initializer.add(name="c", dims=[n], data_type=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
        field = {"float32": tensor.float_data, "int64": tensor.int64_data, "float64": tensor.double_data}[kind]
        field.extend(values[: max(given_values, 0)].tolist())
        if holds:
            accepted(model.SerializeToString())
        else:
            with pytest.raises(BundleModelError, match="(values|0 bytes) are not its shape"):
                check_model(model.SerializeToString(), "x")


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


GROWING: dict[str, Callable[[], bytes]] = {
    "resize_by_factors": lambda: network(node("Resize", ["image", "", "f"], ["tap"]), f=floats(1, 1, 2, 2)),
    "resize_to_a_size": lambda: network(node("Resize", ["image", "", "", "s"], ["tap"]), s=ints(1, 3, 512, 512)),
    "tile": lambda: network(node("Tile", ["image", "r"], ["tap"]), r=ints(1, 1, 32, 32)),
    "expand": lambda: network(node("Expand", ["image", "s"], ["tap"]), s=ints(4, 3, 8, 8)),
    "pad": lambda: network(node("Pad", ["image", "p"], ["tap"]), p=ints(0, 0, 100, 100, 0, 0, 100, 100)),
    "fill": lambda: network(
        node("ConstantOfShape", ["s"], ["zeros"]), node("Add", ["image", "zeros"], ["tap"]), s=ints(1, 3, 8, 8)
    ),
    "fill_by_a_constant_node": lambda: network(
        node("Constant", [], ["s"], value_ints=[1, 3, 8, 8]),
        node("ConstantOfShape", ["s"], ["zeros"]),
        node("Add", ["image", "zeros"], ["tap"]),
    ),
    "fill_of_no_dimension": lambda: network(
        node("ConstantOfShape", ["s"], ["zero"]), node("Add", ["image", "zero"], ["tap"]), s=ints()
    ),
    "constant_of_one_number": lambda: network(
        node("Constant", [], ["s"], value_float=2.0), node("Mul", ["image", "s"], ["tap"])
    ),
    "grow_and_shrink": lambda: network(
        *(node("Resize", [f"x{i}" if i else "image", "", "f"], [f"x{i + 1}"]) for i in range(5)),
        node("AveragePool", ["x5"], ["tap"], kernel_shape=[32, 32], strides=[32, 32]),
        f=floats(1, 1, 2, 2),
    ),
}


@pytest.mark.parametrize("name", GROWING)
def test_operators_that_grow_a_little_pass(name: str) -> None:
    accepted(GROWING[name]())


def test_one_step_beyond_the_limits_is_refused() -> None:
    most, size = int(MAX_ENLARGE**0.5), int(MAX_ELEMENTS**0.5)
    for more, holds in [(0, True), (1, False)]:
        models = [
            network(node("Tile", ["image", "r"], ["tap"]), r=ints(1, 1, most, most + more)),
            network(node("Expand", ["image", "s"], ["tap"]), s=ints(1, 1, size, size + more)),
            network(
                *(node("Relu", ["image"], [f"n{i}"]) for i in range(MAX_NODES - 1 + more)), node("Relu", ["image"], ["tap"])
            ),
        ]
        for model in models:
            if holds:
                accepted(model)
            else:
                with pytest.raises(BundleModelError):
                    check_model(model, "x")


def test_a_constant_that_is_listed_as_an_input_is_no_input() -> None:
    model = onnx.load_model_from_string(network(node("Add", ["image", "c"], ["tap"]), c=floats(1)))
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, [1]))
    assert accepted(model.SerializeToString()).inputs == {"image": (1, 3, 8, 8)}


def test_what_does_not_matter_is_skipped() -> None:
    model = onnx.load_model_from_string(tiny.encoder_model())
    model.doc_string, model.producer_name, model.domain = "text", "a program", "example.com"
    model.metadata_props.add(key="a", value="b")
    model.graph.doc_string = model.graph.node[0].doc_string = "text"
    model.graph.node[0].metadata_props.add(key="a", value="b")
    model.graph.value_info.append(helper.make_tensor_value_info("stem", TensorProto.FLOAT, ["n", 8, "h", "w"]))
    model.graph.input[0].type.denotation = "IMAGE"
    model.graph.node[0].domain = "ai.onnx"
    assert check_model(model.SerializeToString(), "x") == according_to_onnx(tiny.encoder_model())


def test_every_allowed_operator_is_one_of_onnx() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if schema.domain == ""}
    assert known >= OPERATORS
    with_sub_graphs = {
        schema.name
        for schema in onnx.defs.get_all_schemas_with_history()
        if any("GRAPH" in str(attribute.type) for attribute in schema.attributes.values())
    }
    assert {"If", "Loop", "Scan"} <= with_sub_graphs and not with_sub_graphs & OPERATORS


# Damaged models: thousands, and not one surprise


def survives(model: bytes) -> bool:
    """Accepted, or refused with the one error, in one short line and in no time."""
    start = time.process_time()
    try:
        check_model(model, "x.onnx")
        holds = True
    except BundleModelError as error:
        assert str(error).startswith("x.onnx: ") and str(error).isprintable() and len(str(error)) < 500
        holds = False
    assert time.process_time() - start < 1.0
    return holds


def test_mutated_models_are_accepted_or_refused_and_nothing_else() -> None:
    generator = np.random.default_rng(11)
    parents = [tiny.encoder_model(), *(make() for make in GROWING.values())]
    n_refused = 0
    for i in range(3000):
        model = bytearray(parents[i % len(parents)])
        for _ in range(generator.integers(1, 5)):
            at = int(generator.integers(len(model)))
            kind = generator.integers(4)
            if kind == 0:
                model[at] = int(generator.integers(256))
            elif kind == 1:
                model[at] ^= 1 << int(generator.integers(8))
            elif kind == 2:
                del model[at : at + int(generator.integers(1, 9))]
            else:
                model[at:at] = generator.bytes(int(generator.integers(1, 9)))
        n_refused += not survives(bytes(model))
    assert n_refused > 1500


def test_every_truncation_is_survived() -> None:
    whole = tiny.encoder_model()
    assert sum(survives(whole[:n]) for n in range(len(whole))) < 5


def test_what_the_gate_accepts_the_onnx_package_reads_the_same_way() -> None:
    """Flips of one bit: where both see a model, they see the same inputs, outputs and operators."""
    whole, n_accepted = tiny.encoder_model(), 0
    structure = [i for i in range(len(whole)) if i < 200 or i > len(whole) - 400]  # not the weights
    for at in structure:
        for bit in range(8):
            changed = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
            if survives(changed):
                with contextlib.suppress(DecodeError):  # inside what the gate skips
                    assert check_model(changed, "x") == according_to_onnx(changed)
                    n_accepted += 1
    assert n_accepted > 100


def message(fields: list[tuple[int, bytes]]) -> bytes:
    return b"".join(varint(number << 3 | 2) + varint(len(data)) + data for number, data in fields)


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 127 | 128]) + varint(value >> 7)


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_noise_is_survived(data: bytes) -> None:
    survives(data)


@given(
    st.recursive(
        st.binary(max_size=20), lambda inner: st.lists(st.tuples(st.integers(1, 20), inner), max_size=5).map(message)
    )
)
@settings(max_examples=300, deadline=None)
def test_nested_messages_of_noise_are_survived(data: bytes) -> None:
    survives(b"\x3a" + varint(len(data)) + data)

"""The torch backend computes what ONNX Runtime does, and names what it cannot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from small_graphs import BYTES, CASES, PER_CHANNEL, PICTURE, Case, case, ints, model, model_of, normal

from edge_vad.backends import _torch_network as network
from edge_vad.backends._torch_operators import BUILDERS, FAKE
from edge_vad.backends.onnxruntime import OnnxRuntime
from edge_vad.backends.torch import Torch
from edge_vad.errors import BackendError
from edge_vad.onnx_gate import OPERATORS
from edge_vad.onnx_graph import read_graph

ELSEWHERE = {"Constant", "ConstantOfShape", FAKE}  # have tests of their own


def compared(data: bytes, inputs: dict[str, np.ndarray], rtol: float = 1e-4, atol: float = 1e-5) -> None:
    expected, found = OnnxRuntime(data).run(inputs), Torch(data).run(inputs)
    assert set(expected) == set(found)
    for name, values in expected.items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], values.astype(np.float32), rtol=rtol, atol=atol)


def relative_error(expected: np.ndarray, found: np.ndarray) -> float:
    return float(np.abs(expected - found).max() / np.abs(expected).max())


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_operator_computes_what_onnxruntime_does(case: Case) -> None:
    compared(model_of(case), {"x": case.x})


def test_no_operator_is_without_a_comparison() -> None:
    assert {case.kind for case in CASES} == BUILDERS.keys() - ELSEWHERE
    assert BUILDERS.keys() - {FAKE} <= OPERATORS, "no bundle holds anything else"


def test_integers_are_the_very_same_integers() -> None:
    for quantisation in (c for c in CASES if c.kind == "QuantizeLinear"):
        compared(model_of(quantisation), {"x": quantisation.x}, rtol=0, atol=0)


@pytest.mark.parametrize(
    "value",
    [
        {"value_float": 1.5},
        {"value_int": 3},
        {"value_floats": [1.0, 2.5]},
        {"value_ints": [4, 5]},
        {"value": PICTURE[0, 0, 0]},
    ],
    ids=lambda value: next(iter(value)),
)
def test_constants_of_every_kind(value: dict[str, Any]) -> None:
    if "value" in value:
        value = {"value": numpy_helper.from_array(value["value"])}
    nodes = [
        helper.make_node("Constant", [], ["c"], **value),
        helper.make_node("Cast", ["c"], ["f"], to=1),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]
    x = np.ones((7,) if "value" in value else (2,), np.float32)
    compared(model(nodes, {"x": x}, ["y"], []), {"x": x})


@pytest.mark.parametrize("value", [{}, {"value": numpy_helper.from_array(np.array([7], np.int64))}], ids=["zeros", "sevens"])
def test_constants_of_a_shape(value: dict[str, Any]) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["c"], **value),
        helper.make_node("Cast", ["c"], ["f"], to=1),
        helper.make_node("Add", ["x", "f"], ["y"]),
    ]
    x = normal(2, 1)
    compared(model(nodes, {"x": x}, ["y"], [numpy_helper.from_array(ints(3, 2, 4), "shape")]), {"x": x})


def rounded_twice(scale: np.ndarray, zero: np.ndarray) -> bytes:
    """x to integers and back, read by two; and the integers themselves."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["again"]),
        helper.make_node("Add", ["y", "again"], ["z"]),
        helper.make_node("Cast", ["q"], ["whole"], to=1),
    ]
    constants = [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(zero, "zero")]
    return model(nodes, {"x": PICTURE}, ["y", "z", "whole"], constants)


@pytest.mark.parametrize(
    "numbers", [PER_CHANNEL, (np.array(0.05, np.float32), np.array(128, np.uint8))], ids=["channel", "all"]
)
def test_rounding_and_its_inverse_in_one_step_give_the_same_floats(numbers: tuple[np.ndarray, np.ndarray]) -> None:
    """Also where a second one reads the same integers, and where they leave the graph themselves."""
    data = rounded_twice(*numbers)
    steps = network.fused(read_graph(data, "model").nodes)
    assert [node.kind for node in steps] == ["QuantizeLinear", FAKE, "Identity", "Add", "Cast"]
    compared(data, {"x": 20 * PICTURE}, rtol=0, atol=0)


def test_integers_that_are_read_with_other_numbers_are_left_alone() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "other", "zero"], ["y"]),
    ]
    numbers = {"scale": np.float32(0.05), "other": np.float32(0.3), "zero": np.uint8(128)}
    constants = [numpy_helper.from_array(np.array(value), name) for name, value in numbers.items()]
    compared(model(nodes, {"x": PICTURE}, ["y"], constants), {"x": PICTURE})


def test_shapes_that_are_computed_and_constants_that_are_outputs() -> None:
    """x -> (n, channels, -1), as exporters of open sizes write it, and back through an expansion."""
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["kept"]),
        helper.make_node("Concat", ["kept", "rest"], ["wanted"], axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["y"]),
        helper.make_node("Add", ["row", "row"], ["doubled"]),
    ]
    constants = {"first": ints(0, 1), "rest": ints(-1), "row": normal(1, 3)}
    data = model(nodes, {"x": PICTURE}, ["y", "doubled"], [numpy_helper.from_array(v, k) for k, v in constants.items()])
    compared(data, {"x": PICTURE})
    compared(data, {"x": PICTURE[:1]})


def detector_model() -> bytes:
    """A network built as YOLOX is: pixels in four phases, SiLU, pools of three sizes, a way back up, rows of boxes."""
    nodes, phases = [], []
    for row in (0, 1):
        for column in (0, 1):
            phases.append(f"phase{row}{column}")
            nodes.append(helper.make_node("Slice", ["x", f"at{row}{column}", "end", "sides", "two"], [phases[-1]]))
    nodes += [
        helper.make_node("Concat", phases, ["focus"], axis=1),
        helper.make_node("Conv", ["focus", "w0", "b0"], ["stem"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Sigmoid", ["stem"], ["gate"]),
        helper.make_node("Mul", ["stem", "gate"], ["silu"]),
        *(helper.make_node("MaxPool", ["silu"], [f"p{k}"], kernel_shape=[k, k], pads=[k // 2] * 4) for k in (3, 5)),
        helper.make_node("Concat", ["silu", "p3", "p5"], ["pooled"], axis=1),
        helper.make_node("Resize", ["pooled", "", "twice"], ["up"], mode="nearest", nearest_mode="floor",
                         coordinate_transformation_mode="asymmetric", cubic_coeff_a=-0.75),
        helper.make_node("Conv", ["up", "w1"], ["head"], group=3),
        helper.make_node("Reshape", ["head", "rows"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["boxes"], perm=[0, 2, 1]),
    ]  # fmt: skip
    constants = {f"at{r}{c}": ints(r, c) for r in (0, 1) for c in (0, 1)}
    constants |= {"end": ints(2**31, 2**31), "sides": ints(2, 3), "two": ints(2, 2), "rows": ints(0, 6, -1)}
    constants |= {"w0": normal(8, 12, 3, 3), "b0": normal(8), "w1": normal(6, 8, 1, 1)}
    constants |= {"twice": np.array([1, 1, 2, 2], np.float32)}
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return model(nodes, {"x": normal(1, 3, 32, 48)}, ["boxes"], tensors)


def test_a_detector_is_that_of_onnxruntime() -> None:
    data, picture = detector_model(), normal(1, 3, 32, 48)
    expected = OnnxRuntime(data).run({"x": picture})["boxes"]
    assert expected.shape == (1, 16 * 24, 6)
    assert relative_error(expected, Torch(data).run({"x": picture})["boxes"]) < 1e-4


def changed(data: bytes, change: Callable[[Any], object]) -> bytes:
    made = onnx.load_model_from_string(data)
    change(made)
    return bytes(made.SerializeToString())


@given(st.sampled_from(sorted(OPERATORS - BUILDERS.keys())))
def test_an_operator_that_is_not_supported_is_named(kind: str) -> None:
    data = changed(model_of(case("Relu", PICTURE)), lambda m: setattr(m.graph.node[0], "op_type", kind))
    with pytest.raises(BackendError, match=rf"^backend torch cannot load the model: .*\b{kind}\b"):
        Torch(data)


@given(st.sampled_from(sorted(BUILDERS.keys() - ELSEWHERE)), st.sampled_from(["weird", "activation", "blocks"]))
def test_an_attribute_that_is_not_supported_is_named(kind: str, name: str) -> None:
    known = next(c for c in CASES if c.kind == kind)
    data = changed(model_of(known), lambda m: m.graph.node[0].attribute.append(helper.make_attribute(name, 1)))
    with pytest.raises(BackendError, match=f"{kind}: the attribute '{name}' is not supported"):
        Torch(data)


@pytest.mark.parametrize(
    ("kind", "attributes", "words"),
    [
        ("Resize", {"mode": "cubic"}, "Resize: mode='cubic'"),
        ("Resize", {"coordinate_transformation_mode": "tf_crop_and_resize"}, "mode='tf_crop_and_resize'"),
        ("Resize", {"antialias": 1}, "Resize: antialias=1"),
        ("AveragePool", {"dilations": [2, 2]}, r"AveragePool: dilations=\[2, 2\]"),
        ("BatchNormalization", {"training_mode": 1}, "BatchNormalization: training_mode=1"),
        ("ConvTranspose", {"auto_pad": "SAME_UPPER"}, "ConvTranspose: auto_pad='SAME_UPPER'"),
        ("ArgMax", {"select_last_index": 1}, "ArgMax: select_last_index=1"),
        ("Conv", {"group": 2.0}, "Conv: group=2.0"),
        ("Conv", {"pads": 3}, "Conv: pads=3"),
        ("Cast", {"to": 16}, "Cast: to=16"),
        ("QuantizeLinear", {"block_size": 2}, "QuantizeLinear: block_size=2"),
    ],
)
def test_a_value_that_is_not_supported_is_named(kind: str, attributes: dict[str, Any], words: str) -> None:
    def change(made: Any) -> None:
        node = made.graph.node[0]
        kept = [a for a in node.attribute if a.name not in attributes]
        del node.attribute[:]
        node.attribute.extend([*kept, *(helper.make_attribute(k, v) for k, v in attributes.items())])

    data = changed(model_of(next(c for c in CASES if c.kind == kind)), change)
    with pytest.raises(BackendError, match=f"{words} is not supported by the backend torch"):
        Torch(data)


def test_more_outputs_other_integers_and_other_opsets_are_named() -> None:
    two = changed(model_of(case("MaxPool", PICTURE, kernel_shape=[2, 2])), lambda m: m.graph.node[0].output.append("places"))
    with pytest.raises(BackendError, match="MaxPool: its output 'places'"):
        Torch(two)
    wide = case("DequantizeLinear", BYTES, *PER_CHANNEL, opset=10)
    with pytest.raises(BackendError, match=r"opset 10 is not supported by the backend torch \(11 to 23 are\)"):
        Torch(changed(model_of(replace(wide, opset=18)), lambda m: setattr(m.opset_import[0], "version", 10)))
    scale = np.array(0.5, np.float32)
    with pytest.raises(BackendError, match="QuantizeLinear: uint16 as the type"):
        Torch(model_of(case("QuantizeLinear", PICTURE, scale, np.array(3, np.uint16), opset=21))).run({"x": PICTURE})


def test_a_step_that_fails_at_work_is_named() -> None:
    with pytest.raises(BackendError, match="backend torch failed: Conv that makes 'y0': "):
        Torch(model_of(case("Conv", PICTURE, normal(6, 4, 3, 3)))).run({"x": PICTURE[:, :3]})


@pytest.mark.parametrize("shape", [(16, 3, 64, 64), (2, 3, 96, 128)])
def test_the_default_encoder_in_fp32_is_that_of_onnxruntime(lite0: Path, shape: tuple[int, ...]) -> None:
    data, pictures = lite0.read_bytes(), np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)
    expected, backend = OnnxRuntime(data).run({"image": pictures}), Torch(data)
    for name, values in backend.run({"image": pictures}).items():
        assert relative_error(expected[name], values) < 1e-4


def test_tensors_stay_where_they_are(lite0: Path) -> None:
    backend = Torch(lite0.read_bytes())
    pictures = torch.from_numpy(np.random.default_rng(1).uniform(-1, 1, (2, 3, 64, 64)).astype(np.float32))
    found, expected = backend.run_tensors({"image": pictures}), backend.run({"image": pictures.numpy()})
    assert all(isinstance(value, torch.Tensor) and not value.requires_grad for value in found.values())
    assert all(np.array_equal(found[name].numpy(), expected[name]) for name in backend.outputs)
    with pytest.raises(BackendError, match="the model takes image, not picture"):
        backend.run_tensors({"picture": pictures})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_nothing_is_read_back_from_the_device_between_input_and_output(lite0: Path, dtype: torch.dtype) -> None:
    """A meta tensor has a device and a shape but no values: whatever wants to see one on the host fails."""
    resize = model_of(case("Resize", PICTURE, None, np.array([1, 1, 2, 1.5], np.float32), mode="linear"))
    for data, shape in (
        (lite0.read_bytes(), (2, 3, 64, 64)),
        (rounded_twice(*PER_CHANNEL), PICTURE.shape),
        (resize, PICTURE.shape),
    ):
        graph = read_graph(data, "model")
        there = network.Network(graph, torch.device("meta"), dtype)
        found = there({graph.inputs[0]: torch.empty(shape, device="meta")})
        assert all(value.is_meta and value.dtype is dtype for value in found.values())


def test_half_precision_is_computed_and_comes_back_as_fp32(lite0: Path) -> None:
    data, pictures = lite0.read_bytes(), np.random.default_rng(1).uniform(-1, 1, (1, 3, 32, 32)).astype(np.float32)
    expected = OnnxRuntime(data).run({"image": pictures})
    for name, values in Torch(data, precision="fp16").run({"image": pictures}).items():
        assert values.dtype == np.float32
        assert 1e-4 < relative_error(expected[name], values) < 0.02


@pytest.mark.parametrize(
    ("cuda", "available", "words"),
    [
        (None, False, "built for CPUs; pip install torch --index-url"),
        ("12.6", False, "nvidia-smi"),
        ("12.6", True, "there are 2"),
    ],
)
def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_do(
    cuda: str | None, available: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = SimpleNamespace(is_available=lambda: available, device_count=lambda: 2)
    monkeypatch.setattr(torch, "cuda", gpus)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with pytest.raises(BackendError, match=words):
        Torch(tiny.encoder_model(), device="cuda:2")


def test_threads_are_those_that_were_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        Torch(tiny.encoder_model(), threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)

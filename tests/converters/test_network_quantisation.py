"""INT8 of a trained network: the same numbers without transposed convolutions, and only what gains by it in integers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
from edge_vad.converters.quantisation import quantize_network
from edge_vad.converters.subpixel import without_transposed
from onnx import helper

from edge_vad.backends.onnxruntime import OnnxRuntime
from edge_vad.bundle import read_bundle
from edge_vad.networks import FRAMES, picture, planes

GENERATOR = np.random.default_rng(3)


def transposed(kernel: int, stride: int, pad: int, more: int, *, relu: bool = False, group: int = 1) -> Any:
    """x (n, 4, h, w) -> a transposed convolution -> y, perhaps over a rectifier."""
    weights = {"w": GENERATOR.normal(0, 1, (4, 3, kernel, kernel)).astype(np.float32), "b": np.ones(3 * group, np.float32)}
    sides = {"strides": [stride] * 2, "pads": [pad] * 4, "output_padding": [more] * 2, "group": group}
    nodes = [helper.make_node("ConvTranspose", ["x", "w", "b"], ["t"], **sides)]
    nodes += [helper.make_node("Relu" if relu else "Identity", ["t"], ["y"])]
    data = tiny.model(nodes, weights, {"x": ["n", 4, "h", "w"]}, {"y": ["n", 3 * group, "h2", "w2"]})
    return onnx.load_model_from_string(data)


def kinds(model: Any) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "more"), [(3, 2, 1, 1), (2, 2, 0, 0), (4, 2, 1, 0), (5, 3, 1, 0), (5, 3, 2, 2), (3, 1, 1, 0)]
)
def test_a_convolution_and_an_interleaving_are_the_transposed_one(
    kernel: int, stride: int, pad: int, more: int, relu: bool
) -> None:
    model = transposed(kernel, stride, pad, more, relu=relu)
    before = model.SerializeToString()
    made = without_transposed(model)
    onnx.checker.check_model(made)
    assert model.SerializeToString() == before, "the model that was given stays as it is"
    assert not kinds(made)["ConvTranspose"] and {"Conv", "DepthToSpace"} <= kinds(made).keys()
    if relu:
        assert [node.op_type for node in made.graph.node] == ["Conv", "Relu", "DepthToSpace"]
    x = GENERATOR.normal(0, 1, (2, 4, 5, 7)).astype(np.float32)
    expected, found = (OnnxRuntime(m.SerializeToString()).run({"x": x})["y"] for m in (model, made))
    assert expected.shape == (2, 3, 5 * stride, 7 * stride)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "model",
    [transposed(3, 2, 0, 0), transposed(2, 2, 0, 0, group=2), transposed(3, 2, 1, 0)],
    ids=["not a whole multiple", "groups", "one pixel less"],
)
def test_what_is_no_plain_enlargement_stays(model: Any) -> None:
    assert kinds(without_transposed(model)) == kinds(model)


@pytest.fixture(scope="module")
def reduced(network_bundle: Callable[[str], Path]) -> Callable[[str], tuple[Any, Any, np.ndarray]]:
    """By method: the frozen network in fp32 and INT8, and a window that INT8 was not calibrated with."""

    def made(method: str) -> tuple[Any, Any, np.ndarray]:
        bundle = read_bundle(network_bundle(method))
        said = bundle.preprocessing
        frames = [planes(picture(f.image, tuple(said["size"]))) for f in tiny.clip_frames(90, seed=21)[:: said["stride"]]]
        windows = [np.stack(frames[i : i + said["n_frames"]])[None] for i in range(0, 30 - said["n_frames"], 3)]

        def inputs() -> Iterator[dict[str, np.ndarray]]:
            yield from ({FRAMES: window} for window in windows[:-1])

        fp32 = onnx.load_model_from_string(bundle.model("network"))
        return fp32, quantize_network(fp32, inputs(), "minmax", said["odds"]), windows[-1]

    return made


@pytest.mark.parametrize("method", ["maam", "stpag"])
def test_pictures_come_from_integers_and_all_else_from_floats(
    reduced: Callable[[str], tuple[Any, Any, np.ndarray]], method: str
) -> None:
    fp32, int8, window = reduced(method)
    readers: dict[str, set[str]] = {}
    for node in int8.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    dequantised = {
        kind for node in int8.graph.node if node.op_type == "DequantizeLinear" for kind in readers[node.output[0]]
    }
    assert "Conv" in dequantised and not dequantised & {"MatMul", "Softmax", "Gemm", "ReduceMean", "Exp"}
    assert int8.ByteSize() < fp32.ByteSize()
    expected, found = (OnnxRuntime(m.SerializeToString()).run({FRAMES: window}) for m in (fp32, int8))
    for name, values in expected.items():
        if values.ndim == 5:
            off = np.linalg.norm(found[name] - values) / np.linalg.norm(values)
            assert 1e-5 < off < 0.15, "it is in integers, and says much the same"
        else:
            np.testing.assert_allclose(found[name], values, rtol=1e-5)

"""A detector's ONNX file made fit for a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
from edge_vad.converters.objects import load_object_detector
from onnx import helper

from edge_vad.backends import Backend
from edge_vad.errors import EncoderError
from edge_vad.object_detector import ObjectDetector
from edge_vad.onnx_gate import check_model
from edge_vad.plugins import load

WIDTH, HEIGHT = 120, 72  # working pixels: the detector runs on 160 x 96
N_CELLS = sum((160 // s) * (96 // s) for s in (8, 16, 32))


def detector_model(head: str, size: tuple[object, object] = ("h", "w")) -> bytes:
    """A network in the layout of ``head``: one strided convolution per scale, concatenated."""
    n_values = {"yolox": 7, "yolov5": 21, "yolov8": 6}[head]
    generator = np.random.default_rng(0)
    weights = {f"w{s}": generator.normal(0, 0.01, (n_values, 3, s, s)).astype(np.float32) for s in (8, 16, 32)}
    nodes, rows = [], []
    for s in (8, 16, 32):
        nodes.append(helper.make_node("Conv", ["images", f"w{s}"], [f"c{s}"], strides=[s, s]))
        nodes.append(helper.make_node("Reshape", [f"c{s}", "flat"], [f"r{s}"]))
        rows.append(f"r{s}")
    constants = {"flat": np.array([1, n_values, -1], np.int64)}
    if head == "yolov8":
        nodes.append(helper.make_node("Concat", rows, ["boxes"], axis=2))
    else:
        nodes.append(helper.make_node("Concat", rows, ["planes"], axis=2))
        nodes.append(helper.make_node("Transpose", ["planes"], ["lines"], perm=[0, 2, 1]))
        constants["seven"] = np.array([1, -1, 7], np.int64)
        nodes.append(helper.make_node("Reshape", ["lines", "seven"], ["boxes"]))
    return tiny.model(nodes, {**weights, **constants}, {"images": [1, 3, *size]}, {"boxes": [1, "a", "b"]})


def write(folder: Path, data: bytes) -> Path:
    path = folder / "detector.onnx"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("head", ["yolox", "yolov5", "yolov8"])
def test_the_layout_is_recognised_and_the_input_is_set(head: str, tmp_path: Path) -> None:
    model, settings = load_object_detector(write(tmp_path, detector_model(head)), WIDTH, HEIGHT)
    assert (settings.head, settings.input_size) == (head, (160, 96))
    assert (settings.input_name, settings.output_name) == ("images", "boxes")
    runner = load("backends", "onnxruntime", Backend)(model)
    output = runner.run({"images": np.zeros((1, 3, 96, 160), np.float32)})["boxes"]
    assert check_model(model, "detector").outputs == {"boxes": output.shape}  # or no bundle takes it
    assert output.shape[2 if head == "yolov8" else 1] == N_CELLS * (3 if head == "yolov5" else 1)


def test_a_file_of_fixed_size_keeps_its_size(tmp_path: Path) -> None:
    _, settings = load_object_detector(write(tmp_path, reshaping_model()), WIDTH, HEIGHT)
    assert settings.input_size == (64, 64)


def reshaping_model() -> bytes:
    """A YOLOv8-like network whose graph takes 64 x 64 pictures only."""
    weights = {"w": np.ones((6, 3 * 64 * 64), np.float32) * 1e-4, "flat": np.array([3 * 64 * 64, 1], np.int64)}
    weights |= {"one": np.zeros((1, 1, 84), np.float32), "shape": np.array([1, 6, 1], np.int64)}
    nodes = [
        helper.make_node("Reshape", ["images", "flat"], ["column"]),
        helper.make_node("MatMul", ["w", "column"], ["value"]),
        helper.make_node("Reshape", ["value", "shape"], ["cell"]),
        helper.make_node("Add", ["cell", "one"], ["boxes"]),
    ]
    return tiny.model(nodes, weights, {"images": [1, 3, 64, 64]}, {"boxes": [1, 6, 84]})


def test_weights_are_stored_as_fp16_and_compute_the_same(tmp_path: Path) -> None:
    whole = detector_model("yolov8")
    model, settings = load_object_detector(write(tmp_path, whole), WIDTH, HEIGHT)
    assert len(model) < 0.6 * len(whole)
    kinds = {t.name: t.data_type for t in onnx.load_model_from_string(model).graph.initializer}
    assert kinds["w8_fp16"] == onnx.TensorProto.FLOAT16 and kinds["flat"] == onnx.TensorProto.INT64
    picture = np.random.default_rng(1).random((1, 3, 96, 160)).astype(np.float32)
    backend = load("backends", "onnxruntime", Backend)
    one, other = (backend(m).run({"images": picture})["boxes"] for m in (whole, model))
    np.testing.assert_allclose(one, other, atol=5e-3)
    boxes, _ = ObjectDetector(backend(model), settings).detect(np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert boxes.shape[1] == 4


def test_the_same_file_gives_the_same_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, detector_model("yolox"))
    assert load_object_detector(path, WIDTH, HEIGHT) == load_object_detector(path, WIDTH, HEIGHT)


def test_what_is_no_detector_is_refused(tmp_path: Path, tiny_encoder: Path) -> None:
    with pytest.raises(EncoderError, match="as a YOLO detector; export it with a dynamic size"):
        load_object_detector(tiny_encoder, WIDTH, HEIGHT)
    with pytest.raises(EncoderError, match="not a valid ONNX model"):
        load_object_detector(write(tmp_path, b"garbage"), WIDTH, HEIGHT)
    with pytest.raises(EncoderError, match="cannot be read"):
        load_object_detector(tmp_path / "nowhere.onnx", WIDTH, HEIGHT)
    flat = tiny.model([helper.make_node("Relu", ["x"], ["y"])], {}, {"x": [1, 3]}, {"y": [1, 3]})
    with pytest.raises(EncoderError, match=r"one picture \(1, 3, H, W\)"):
        load_object_detector(write(tmp_path, flat), WIDTH, HEIGHT)


def test_an_unknown_layout_is_refused_with_its_shape(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMean", ["images"], ["boxes"], axes=[3], keepdims=0)]
    path = write(tmp_path, tiny.model(nodes, {}, {"images": [1, 3, "h", "w"]}, {"boxes": [1, 3, "h"]}))
    with pytest.raises(EncoderError, match=r"output \(1, 3, 96\) is none of the known layouts"):
        load_object_detector(path, WIDTH, HEIGHT)

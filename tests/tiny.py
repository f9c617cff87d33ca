"""Makes the smallest things that the tests need: clips, ONNX models, bundles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_vad.cameras.synthetic import SyntheticStreet
from edge_vad.types import Frame, UInt8

SIZE = (180, 120)
NETWORKS = Path(__file__).parent / "fixtures" / "networks"  # trained by make_networks.py beside them
TRAINED, HELD_OUT, N_TRAINED = (21, 22, 23, 24, 25), 23, 200  # seeds and frames of the clips that they saw; one was held out


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def clip_frames(n: int, seed: int = 1, size: tuple[int, int] = SIZE, anomalies: str = "none") -> list[Frame]:
    """The first frames of a small generated street."""
    street = SyntheticStreet(f"seed={seed},seconds={n / 10},anomalies={anomalies},size={size[0]}x{size[1]}")
    return list(street.frames())


def write_clip(folder: Path, n: int, seed: int = 1, size: tuple[int, int] = SIZE) -> Path:
    """The first frames of a small generated street as pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for frame in clip_frames(n, seed, size):
        cv2.imwrite(str(folder / f"{frame.index:03d}.png"), frame.image[..., ::-1])
    return folder


def write_video(path: Path, n: int, seed: int = 1, fps: float = 10.0) -> Path:
    """The first frames of a small generated street as a video."""
    code = cv2.VideoWriter_fourcc(*("mp4v" if path.suffix == ".mp4" else "MJPG"))
    writer = cv2.VideoWriter(str(path), code, fps, SIZE)
    for frame in clip_frames(n, seed):
        writer.write(np.ascontiguousarray(frame.image[..., ::-1]))
    writer.release()
    return path


def still_frames(image: UInt8, n: int, fps: float = 10.0) -> list[Frame]:
    """The same picture again and again."""
    return [Frame(image, np.ascontiguousarray(image[..., 1]), i / fps, i) for i in range(n)]


def model(
    nodes: Sequence[Any], weights: dict[str, np.ndarray], inputs: dict[str, Sequence[Any]], outputs: dict[str, Sequence[Any]]
) -> bytes:
    """ONNX bytes of a graph of float32 values; shapes may hold names."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def encoder_model() -> bytes:
    """image (n, 3, h, w) -> fine (n, 8, h/4, w/4) and coarse (n, 8, h/8, w/8)."""
    generator = np.random.default_rng(5)
    weights = {
        "w0": generator.normal(0, 0.3, (8, 3, 4, 4)).astype(np.float32),
        "w1": generator.normal(0, 0.3, (8, 8, 2, 2)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["stem"], strides=[4, 4]),
        helper.make_node("Relu", ["stem"], ["fine"]),
        helper.make_node("Conv", ["fine", "w1"], ["last"], strides=[2, 2]),
        helper.make_node("Relu", ["last"], ["coarse"]),
    ]
    outputs = {"fine": ["n", 8, "h4", "w4"], "coarse": ["n", 8, "h8", "w8"]}
    return model(nodes, weights, {"image": ["n", 3, "h", "w"]}, outputs)


def build_arguments(normal: Path, out: Path, encoder: Path, *more: str) -> list[str]:
    """A build that takes a second."""
    said = ["build", "--normal", str(normal), "--out", str(out), "--encoder", str(encoder), "--taps", "fine,coarse"]
    return [*said, "--precision", "fp32", "--ratio", "0.05", *more]


def network_arguments(method: str, normal: Path, out: Path, *more: str) -> list[str]:
    """A build from one of the frozen networks."""
    weights = str(NETWORKS / f"{method}.safetensors")
    said = ["build", "--method", method, "--weights", weights, "--normal", str(normal), "--out", str(out)]
    return [*said, "--precision", "fp32", *more]

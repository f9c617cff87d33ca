"""The numpy path over torch's networks: what the tensor path has to equal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from onnx import helper

from edge_vad.backends.torch import Torch
from edge_vad.bundle import Bundle, read_bundle
from edge_vad.methods.base import Method, Observation
from edge_vad.methods.videopatchcore import VideoPatchCore
from edge_vad.tensors import transfer
from edge_vad.types import Float32, Frame

CPU = torch.device("cpu")
N_VALUES = {"yolox": 7, "yolov5": 7, "yolov8": 6}


def detector_model(head: str) -> bytes:
    """A network in the layout of a detector head: boxes of 20 x 40 input pixels wherever the picture happens to say so."""
    generator, n_values = np.random.default_rng(0), N_VALUES[head]
    weights: dict[str, np.ndarray] = {"flat": np.array([1, n_values, -1], np.int64)}
    nodes = []
    for s in (8, 16, 32):
        kernel = generator.normal(0, 0.02 / s, (n_values, 3, s, s))
        if head == "yolox":  # pixels up to 255; places and sizes in strides, relative to the cell
            kernel, bias = kernel / 255, [0.5, 0.5, np.log(20 / s), np.log(40 / s), 0.5, 0.5, 0.1]
        else:
            kernel[:2] *= 1000
            bias = [80.0, 48.0, 20.0, 40.0, 0.5, 0.5, 0.1][:n_values]
        weights |= {f"w{s}": kernel.astype(np.float32), f"b{s}": np.array(bias, np.float32)}
        nodes.append(helper.make_node("Conv", ["images", f"w{s}", f"b{s}"], [f"c{s}"], strides=[s, s]))
        nodes.append(helper.make_node("Reshape", [f"c{s}", "flat"], [f"r{s}"]))
    whole = "boxes" if head == "yolov8" else "planes"
    nodes.append(helper.make_node("Concat", ["r8", "r16", "r32"], [whole], axis=2))
    if head != "yolov8":
        nodes.append(helper.make_node("Transpose", ["planes"], ["boxes"], perm=[0, 2, 1]))
    return tiny.model(nodes, weights, {"images": [1, 3, "h", "w"]}, {"boxes": [1, "a", "b"]})


class OnHost(Torch):
    """The same networks, but arrays in and out."""

    def __init__(self, model: bytes, **how: Any) -> None:
        super().__init__(model, **how)
        self.torch_device = ""


def opened(bundle: Bundle | Path, backend: Any, bank: str = "auto", device: str = "cpu") -> Method:
    if isinstance(bundle, Path):
        bundle = read_bundle(bundle)
    return VideoPatchCore.open(bundle, backend, threads=1, device=device, bank=bank)


def check_observations(expected: Observation, found: Observation) -> None:
    """The same boxes to the last bit, the same ages, components within a thousandth."""
    assert found.regions == expected.regions
    for name, values in expected.region_components.items():
        np.testing.assert_allclose(found.region_components[name], values, rtol=1e-3, atol=1e-5, err_msg=name)
    assert found.components.keys() == expected.components.keys()
    for name, value in expected.components.items():
        assert found.components[name] == pytest.approx(value, rel=1e-3, abs=1e-5, nan_ok=True), name


def check_same(expected: Method, found: Method, frames: Sequence[Frame]) -> int:
    """Both say the same of every frame; the number of regions there were."""
    n_regions = 0
    for frame in frames:
        one, other = expected.observe(frame), found.observe(frame)
        check_observations(one, other)
        n_regions += len(one.regions)
    return n_regions


def tensor(array: np.ndarray) -> torch.Tensor:
    return transfer.upload(array, CPU)


def close(found: torch.Tensor, expected: np.ndarray, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    assert tuple(found.shape) == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=rtol, atol=atol)


def boxes_around(generator: np.random.Generator, n: int, width: float, height: float) -> Float32:
    """Upright boxes, some of them partly or wholly outside of a picture."""
    centre = generator.uniform(-0.2, 1.2, (n, 2)) * [width, height]
    tall = generator.uniform(0.2, 1, (n, 1)) * height
    half = np.concatenate([tall / 4, tall / 2], axis=1)
    return np.concatenate([centre - half, centre + half], axis=1).astype(np.float32)


@contextmanager
def counted_downloads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Bytes of every download inside."""
    sizes: list[int] = []
    download = transfer.download

    def counted(tensors: Sequence[torch.Tensor], *timing: Any) -> list[np.ndarray]:
        sizes.append(sum(t.nbytes for t in tensors))
        return download(tensors, *timing)

    with monkeypatch.context() as patch:
        patch.setattr(transfer, "download", counted)
        yield sizes

"""Every backend runs every trained network, in fp32 and INT8, and the scores are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny
from edge_vad.converters.quantisation import quantize_network
from edge_vad.converters.systems import SYSTEMS

from edge_vad.backends import Backend
from edge_vad.bundle import Bundle, read_bundle
from edge_vad.calibration import Calibration
from edge_vad.detector import Detector
from edge_vad.events import EventSettings
from edge_vad.golden import TOLERANCES, deviation, golden_frames, golden_values
from edge_vad.methods import Method
from edge_vad.networks import FRAMES, picture, planes
from edge_vad.plugins import load
from edge_vad.profile import load_profile
from edge_vad.strict import from_plain

REFERENCE, OTHERS = "onnxruntime", ("openvino", "torch")
N_CALIBRATION = 8  # windows


def in_int8(bundle: Bundle) -> Bundle:
    """The bundle with its network in INT8; nothing else of it is made anew."""
    said = bundle.preprocessing
    size, n = tuple(said["size"]), said["n_frames"]
    frames = [planes(picture(frame.image, size)) for frame in tiny.clip_frames(120, seed=21)[:: said["stride"]]]

    def inputs() -> Iterator[dict[str, np.ndarray]]:
        for start in np.linspace(0, len(frames) - n, N_CALIBRATION).astype(int):
            yield {FRAMES: np.stack(frames[start : start + n])[None]}

    model = quantize_network(onnx.load_model_from_string(bundle.model("network")), inputs(), "minmax", said["odds"])
    return replace(bundle, members={**bundle.members, bundle.manifest.models["network"].file: model.SerializeToString()})


def computed(bundle: Bundle, backend: str) -> dict[str, np.ndarray]:
    """All that the golden self-test would compare."""
    kind = load("methods", bundle.method, Method)  # type: ignore[type-abstract]
    method = kind.open(bundle, load("backends", backend, Backend), threads=1, device="cpu", bank="exact")  # type: ignore[type-abstract]
    scoring = bundle.calibration
    calibration = from_plain(Calibration, scoring["calibration"], "calibration", ValueError)  # type: ignore[arg-type]
    images = np.stack([frame.image for frame in tiny.clip_frames(45, seed=8, anomalies="all")[::3]])
    frames = golden_frames(images, tiny.SIZE, scoring["period_s"])
    return golden_values(method, calibration, EventSettings(**scoring["events"]), frames)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("method", SYSTEMS)
def test_backends_agree_as_closely_as_the_self_test_demands(
    network_bundle: Callable[[str], Path], method: str, precision: str
) -> None:
    bundle = read_bundle(network_bundle(method))
    bundle = bundle if precision == "fp32" else in_int8(bundle)
    expected = computed(bundle, REFERENCE)
    assert len(np.unique(expected["scores"])) > 2, "scores that are all the same would agree by themselves"
    for backend in OTHERS:
        found = computed(bundle, backend)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            if name != "decisions":
                allowed = TOLERANCES[precision].of(name.partition(".")[0])
                assert deviation(name, values, found[name]) <= allowed, (backend, name)


@pytest.mark.parametrize("backend", [REFERENCE, *OTHERS])
def test_a_bundle_of_a_network_opens_with_its_self_test(network_bundle: Callable[[str], Path], backend: str) -> None:
    Detector.open(network_bundle("maam"), load_profile("desktop_cpu", [f"inference.backend={backend}"]))

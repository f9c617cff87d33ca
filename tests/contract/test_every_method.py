"""What every method must do, run over every module in the folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from edge_vad.backends import Backend
from edge_vad.bundle import read_bundle
from edge_vad.errors import SourceError
from edge_vad.methods import Method
from edge_vad.methods._network import NetworkMethod
from edge_vad.methods.base import Observation
from edge_vad.methods.videopatchcore import VideoPatchCore
from edge_vad.plugins import available, load

FRAMES = tiny.clip_frames(30, seed=9)[::2]


def bundle_of(name: str, request: pytest.FixtureRequest) -> Path:
    """A bundle that the method ``name`` runs. A new method needs a line here, or a frozen network."""
    if name == "videopatchcore":
        return Path(request.getfixturevalue("tiny_bundle"))
    if name == "ensemble":
        return Path(request.getfixturevalue("ensemble_bundle"))
    frozen = tiny.NETWORKS / f"{name}.safetensors"
    assert frozen.exists(), f"tell this test how to make a bundle for the method {name}"
    build: Callable[[str], Path] = request.getfixturevalue("network_bundle")
    return build(name)


@pytest.fixture(params=available("methods"))
def method(request: pytest.FixtureRequest) -> Method:
    bundle = read_bundle(bundle_of(request.param, request))
    backend = load("backends", "onnxruntime", Backend)
    return load("methods", request.param, Method).open(bundle, backend, threads=1, device="cpu", bank="exact")


def same(a: Observation, b: Observation) -> bool:
    of_frame = [np.array_equal(a.components[n], b.components[n], equal_nan=True) for n in a.components]
    of_maps = [np.array_equal(values, b.maps[n]) for n, values in a.maps.items()]
    return a.regions == b.regions and a.components.keys() == b.components.keys() and all([*of_frame, *of_maps])


def test_components_keep_their_names_and_become_known(method: Method) -> None:
    observations = [method.observe(frame) for frame in FRAMES]
    names = [set(observation.components) for observation in observations]
    assert names[0] and all(n == names[0] for n in names) and (not method.components or names[0] == {*method.components})
    known = [np.isfinite([*observation.components.values()]).all() for observation in observations]
    assert known[-1] and known == sorted(known)  # what is known stays known
    assert all(value >= 0 for seen in observations for value in seen.components.values() if not np.isnan(value))


def test_the_largest_region_is_what_the_frame_scores(method: Method) -> None:
    for frame in FRAMES:
        seen = method.observe(frame)
        for name, values in seen.region_components.items():
            assert values.shape == (len(seen.regions),)
            if len(values) and np.isfinite(seen.components[name]):
                assert seen.components[name] == pytest.approx(float(values.max()))


def test_regions_lie_in_pixels_of_the_image(method: Method) -> None:
    found = [region for frame in FRAMES for region in method.observe(frame).regions]
    assert found
    margin = 0 if isinstance(method, NetworkMethod) else 60  # a box of an object that is half outside
    for region in found:
        assert region.x0 < region.x1 and region.y0 < region.y1
        assert -margin <= region.x0 < tiny.SIZE[0] and -margin <= region.y0 < tiny.SIZE[1]
        assert region.x1 <= tiny.SIZE[0] + margin and region.y1 <= tiny.SIZE[1] + margin
        assert 0 < region.confidence <= 1 and region.age >= 1


def test_maps_are_of_components_and_reach_what_the_frame_scores(method: Method) -> None:
    for frame in FRAMES:
        seen = method.observe(frame)
        assert {*seen.maps} <= {*seen.components} and len({values.shape for values in seen.maps.values()}) <= 1
        for name, values in seen.maps.items():
            assert values.ndim == 2 and values.dtype == np.float32 and np.isfinite(values).all() and values.min() >= 0
            assert values.max() >= seen.components[name] * (1 - 1e-6)


def test_the_highest_cell_of_a_map_lies_in_a_region(method: Method) -> None:
    for frame in FRAMES:
        seen = method.observe(frame)
        peaks = [np.unravel_index(values.argmax(), values.shape) for values in seen.maps.values()]
        shape = next(iter(seen.maps.values())).shape if seen.maps else (1, 1)
        places = [((x + 0.5) * tiny.SIZE[0] / shape[1], (y + 0.5) * tiny.SIZE[1] / shape[0]) for y, x in peaks]
        inside = [any(r.x0 <= x < r.x1 and r.y0 <= y < r.y1 for r in seen.regions) for x, y in places]
        assert not inside or any(inside)


def test_observations_depend_on_the_past_only(method: Method) -> None:
    before = [method.observe(frame) for frame in FRAMES[:12]]
    method.reset()
    blank = [replace(frame, image=np.zeros_like(frame.image)) for frame in FRAMES[12:]]
    again = [method.observe(frame) for frame in [*FRAMES[:12], *blank]]
    assert all(same(a, b) for a, b in zip(before, again, strict=False))
    assert not np.isnan([*before[-1].components.values()]).any()


def test_reset_forgets_everything(method: Method) -> None:
    first = [method.observe(frame) for frame in FRAMES]
    method.reset()
    assert all(same(a, method.observe(frame)) for a, frame in zip(first, FRAMES, strict=True))


def test_a_still_picture_scores_nothing_or_always_the_same(method: Method) -> None:
    """VideoPatchCore has no regions where nothing moves. A network draws the whole picture: its error stays, a usual one."""
    *_, one, seen = [method.observe(frame) for frame in tiny.still_frames(FRAMES[0].image, 12)]
    if isinstance(method, VideoPatchCore):
        assert seen.regions == () and not seen.maps
        assert all(seen.components[name] == 0 for name in seen.region_components)
        return
    assert same(one, seen)
    method.reset()
    moving = [method.observe(frame).components for frame in FRAMES]
    for name, value in seen.components.items():
        times = 10 if name == "semantic" else 2  # odds spread over orders of magnitude, errors do not
        assert 0 <= value < times * np.nanmax([components[name] for components in moving])


def test_a_document_scores_a_whole_video_or_there_is_none(method: Method) -> None:
    raw = [method.observe(frame).components for frame in FRAMES]
    known = [components for components in raw if not np.isnan([*components.values()]).any()]
    scores = method.document({name: np.array([components[name] for components in known]) for name in known[0]})
    assert scores is None or (scores.shape == (len(known),) and np.isfinite(scores).all() and np.ptp(scores) > 0)
    assert (scores is not None) == isinstance(method, NetworkMethod)


def test_frames_of_another_size_are_refused(method: Method) -> None:
    frame = tiny.clip_frames(1, size=(200, 120))[0]
    with pytest.raises(SourceError, match="200x120 pixels, the bundle was built for 180x120"):
        method.observe(frame)


def test_golden_values_are_reproduced_and_leave_no_trace(method: Method) -> None:
    first = method.observe(FRAMES[0])
    one, other = method.golden(FRAMES[:12]), method.golden(FRAMES[:12])
    assert one and all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)
    assert same(first, method.observe(FRAMES[0]))

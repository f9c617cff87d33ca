"""What every method must do, run over every module in the folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny

from edge_vad.backends import Backend
from edge_vad.bundle import read_bundle
from edge_vad.errors import SourceError
from edge_vad.methods import Method
from edge_vad.methods.base import Observation
from edge_vad.plugins import available, load

FRAMES = tiny.clip_frames(30, seed=9)[::2]


def bundle_of(name: str, tiny_bundle: Path) -> Path:
    """A bundle that the method ``name`` runs. A new method needs a line here."""
    assert name == "videopatchcore", f"tell this test how to make a bundle for the method {name}"
    return tiny_bundle


@pytest.fixture(params=available("methods"))
def method(request: pytest.FixtureRequest, tiny_bundle: Path) -> Method:
    bundle = read_bundle(bundle_of(request.param, tiny_bundle))
    backend = load("backends", "onnxruntime", Backend)
    return load("methods", request.param, Method).open(bundle, backend, threads=1, device="cpu", bank="exact")


def same(a: Observation, b: Observation) -> bool:
    return a.regions == b.regions and all(
        np.array_equal(a.components[n], b.components[n], equal_nan=True) for n in a.components
    )


def test_components_keep_their_names_and_become_known(method: Method) -> None:
    observations = [method.observe(frame) for frame in FRAMES]
    names = [set(observation.components) for observation in observations]
    assert names[0] and all(n == names[0] for n in names)
    assert all(np.isfinite(value) and value >= 0 for value in observations[-1].components.values())


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
    for region in found:
        assert region.x0 < region.x1 and region.y0 < region.y1
        assert -60 < region.x0 < tiny.SIZE[0] and -60 < region.y0 < tiny.SIZE[1]
        assert 0 < region.confidence <= 1 and region.age >= 1


def test_observations_depend_on_the_past_only(method: Method) -> None:
    before = [method.observe(frame) for frame in FRAMES[:8]]
    method.reset()
    blank = [replace(frame, image=np.zeros_like(frame.image)) for frame in FRAMES[8:]]
    again = [method.observe(frame) for frame in [*FRAMES[:8], *blank]]
    assert all(same(a, b) for a, b in zip(before, again, strict=False))


def test_reset_forgets_everything(method: Method) -> None:
    first = [method.observe(frame) for frame in FRAMES]
    method.reset()
    assert all(same(a, method.observe(frame)) for a, frame in zip(first, FRAMES, strict=True))


def test_a_still_picture_has_no_regions_and_scores_nothing_there(method: Method) -> None:
    seen = [method.observe(frame) for frame in tiny.still_frames(FRAMES[0].image, 12)][-1]
    assert seen.regions == ()
    assert all(seen.components[name] == 0 for name in seen.region_components)


def test_frames_of_another_size_are_refused(method: Method) -> None:
    frame = tiny.clip_frames(1, size=(200, 120))[0]
    with pytest.raises(SourceError, match="200x120 pixels, the bundle was built for 180x120"):
        method.observe(frame)


def test_golden_values_are_reproduced_and_leave_no_trace(method: Method) -> None:
    first = method.observe(FRAMES[0])
    one, other = method.golden(FRAMES[:6]), method.golden(FRAMES[:6])
    assert one and all(np.array_equal(one[name], other[name], equal_nan=True) for name in one)
    assert same(first, method.observe(FRAMES[0]))

"""The four methods with a network: their scores by the documents' equations, and what they do on a stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from edge_vad.backends.base import Backend
from edge_vad.errors import BackendError, BundleFormatError, SourceError
from edge_vad.methods._network import NetworkMethod, between
from edge_vad.methods.amco import Amco
from edge_vad.methods.desd import Desd
from edge_vad.methods.maam import Maam
from edge_vad.methods.stpag import Stpag
from edge_vad.networks import FRAMES, Network, NetworkSettings, Target
from edge_vad.patches import Patches
from edge_vad.plugins import available
from edge_vad.types import Frame

Draw = Callable[[np.ndarray], Mapping[str, np.ndarray]]
Cells = Mapping[tuple[int, int], float]
IMAGE, SIZE = (64, 32), (32, 16)
KINDS: dict[str, type[NetworkMethod]] = {"maam": Maam, "amco": Amco, "desd": Desd, "stpag": Stpag}
FRAME, DIFFERENCE = Target(1, 2), Target(1, 2, "difference")
MEANS = {"appearance": 0.5, "motion": 0.25, "change": 0.25}


class Drawing(Backend):
    """Answers with what a function draws of the window that it is asked about."""

    def __init__(self, draw: Draw, *outputs: str) -> None:
        self.draw, self.outputs, self.n_runs = draw, outputs, 0

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.n_runs += 1
        return {name: value.astype(np.float32) for name, value in self.draw(inputs[FRAMES]).items()}


def method_of(name: str, draw: Draw | None = None, **changed: Any) -> tuple[NetworkMethod, Drawing]:
    """A method over a network that draws appearance and, where it scores it, motion, and says how likely, of two frames."""
    predicts = name in ("amco", "desd")
    settings = {
        "targets": {"appearance": FRAME} if predicts else {"appearance": FRAME, "motion": DIFFERENCE},
        "change_of": "appearance" if predicts else None,
        "values": ("semantic",) if name == "stpag" else (),
        "means": MEANS,
        "n_frames": 2,
        **changed,
    }
    scene = NetworkSettings(IMAGE, SIZE, 10.0, 1, patches=Patches(8, 8, 8, 8), **settings)
    session = Drawing(draw or off_by(), *scene.targets, *scene.odds, *scene.values)
    return KINDS[name](scene, Network(session, scene)), session


def off_by(appearance: Cells | None = None, motion: Cells | None = None, odds: float = 1) -> Draw:
    """Draws the right pictures, but for the cells (row, column) of 8 x 8 pixels that are off by that much."""

    def draw(window: np.ndarray) -> dict[str, np.ndarray]:
        found = {"appearance": window[:, 1:2].copy(), "motion": window[:, 1:2] - window[:, :1]}
        for name, cells in (("appearance", appearance), ("motion", motion)):
            for (row, column), error in (cells or {}).items():
                found[name][..., 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] += error
        return {**found, "semantic": np.full((1, 1), odds)}

    return draw


def frames(n: int, seed: int = 0) -> list[Frame]:
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 255, (n, IMAGE[1], IMAGE[0], 3), dtype=np.uint8)
    return [Frame(image, image[..., 0], i / 10, i) for i, image in enumerate(images)]


def grid(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_all_of_the_folder_are_here() -> None:
    assert {*KINDS} == {name for name in available("methods") if issubclass(_kind(name), NetworkMethod)}


def _kind(name: str) -> type:
    from edge_vad.methods import Method
    from edge_vad.plugins import load

    return load("methods", name, Method)


def test_maam_fuses_both_errors_of_a_patch() -> None:
    """Document 004, algorithm 1: max over patches of psi e_app + (1 - psi) e_mot, here over their means 0.5 and 0.25."""
    method, _ = method_of("maam", share=0.75)
    # Fused: 1.5 a + m. Neither the worst appearance (0, 0) nor the worst motion (1, 1), but where both are bad (0, 1).
    patches = {"appearance": grid((0.8, 0.6), (0.0, 0.1)), "motion": grid((0.0, 0.7), (0.3, 1.0))}
    scored = method.score(patches, {})
    assert np.allclose(scored.maps["fused"], [[1.2, 1.6], [0.3, 1.15]]) and scored.at == {"fused": (0, 1)}
    assert method.components == ("fused",)


def test_maam_without_a_motion_decoder_scores_appearance() -> None:
    method, _ = method_of("maam", targets={"appearance": FRAME}, share=0.5)
    scored = method.score({"appearance": grid((0.2, 0.4))}, {})
    assert np.allclose(scored.maps["fused"], [[0.2, 0.4]]) and method.components == ("fused",)


def test_amco_weighs_both_errors_by_their_means() -> None:
    """Document 001: w_F S_F and w_I S_I, each of its own worst patch; the change of what is predicted stands for flow."""
    method, _ = method_of("amco")
    patches = {"appearance": grid((9.0, 0.2)), "change": grid((0.1, 0.5))}
    scored = method.score(patches, {})
    assert scored.at == {"change": (0, 1), "appearance": (0, 0)} and method.weights == {"change": 1.0, "appearance": 0.2}
    assert np.allclose(scored.maps["change"], [[0.4, 2]]) and np.allclose(scored.maps["appearance"], [[18, 0.4]])


def test_amco_of_an_older_bundle_scores_its_motion_branch() -> None:
    method, _ = method_of("amco", change_of=None, targets={"appearance": FRAME, "motion": DIFFERENCE})
    scored = method.score({"appearance": grid((0.1, 0.2)), "motion": grid((0.5, 0.1))}, {})
    assert scored.at == {"appearance": (0, 1), "motion": (0, 0)} and method.components == ("motion", "appearance")


def test_desd_scores_its_worst_patches() -> None:
    """Document 003, algorithm A1: max R of the mean squared errors; and the same of how much changes."""
    method, _ = method_of("desd")
    scored = method.score({"appearance": grid((0.1, 0.2), (0.4, 0.3)), "change": grid((0.0, 0.7), (0.1, 0.1))}, {})
    assert scored.maps["appearance"].max() == scored.maps["appearance"][scored.at["appearance"]] == np.float32(0.4)
    assert scored.at == {"appearance": (1, 0), "change": (0, 1)} and method.weights == {"change": 1.0, "appearance": 0.2}


def test_stpag_takes_each_error_from_its_own_worst_patch() -> None:
    method, _ = method_of("stpag")
    scored = method.score({"appearance": grid((0.1, 0.2)), "motion": grid((0.4, 0.3))}, {"semantic": 3.0})
    assert scored.at == {"appearance": (0, 1), "motion": (0, 0)} and scored.values == {"semantic": 3.0}


def test_stpag_without_a_discriminator_has_two_components() -> None:
    method, _ = method_of("stpag", values=())
    assert method.components == ("appearance", "motion")
    observed = [method.observe(frame) for frame in frames(3)]
    assert all(set(seen.components) == {"appearance", "motion"} for seen in observed)


def series(**values: list[float]) -> dict[str, np.ndarray]:
    return {name: np.array(raw) for name, raw in values.items()}


def test_the_scores_of_maam_and_desd_between_their_extremes() -> None:
    """Document 004, equation 11."""
    assert np.allclose(Maam.document(series(fused=[3, 1, 2, 5])), [0.5, 0, 0.25, 1])
    assert np.allclose(Desd.document(series(appearance=[0.3, 0.1, 0.1])), [1, 0, 0])


def test_the_score_of_amco_over_its_largest() -> None:
    """S = log(w_F S_F) + 0.2 log(w_I S_I), over the maximum of what lies above the minimum."""
    change, appearance = [1.0, math.e, math.e**2], [math.e**5, 1.0, math.e**10]
    # S: 0 + 1, 1 + 0, 2 + 2.
    assert np.allclose(Amco.document(series(change=change, appearance=appearance)), [0, 0, 1])
    assert np.allclose(Amco.document(series(change=[1.0, math.e, math.e**4], appearance=[1.0] * 3)), [0, 0.25, 1])
    assert np.allclose(Amco.document(series(appearance=appearance)), [0.5, 0, 1])


def test_the_score_of_stpag_by_equations_1_to_4() -> None:
    """PSNR of pixels in -1..1, so of a range of 2; weights 0.65, 0.25 and 0.1."""
    raw = series(appearance=[0.04, 0.4, 4.0], motion=[1, 3, 2], semantic=[1, 3, 0])
    # PSNR 20, 10, 0: omega 1 = 0, 0.5, 1. Omega 2 = 0, 1, 0.5. Omega 3 = 0.5, 0.75, 0.
    expected = [0.05, 0.325 + 0.25 + 0.075, 0.65 + 0.125]
    assert np.allclose(Stpag.document(raw), expected)
    del raw["semantic"]
    assert np.allclose(Stpag.document(raw), [0, 0.325 + 0.25, 0.65 + 0.125])


@pytest.mark.parametrize("name", KINDS)
def test_a_video_that_never_changes_has_finite_scores(name: str) -> None:
    method, _ = method_of(name)
    for value in (0.0, 1e-9, 2.0):
        scores = method.document({component: np.full(4, value) for component in method.components})
        assert scores.shape == (4,) and np.isfinite(scores).all() and np.ptp(scores) == 0


def test_between_the_extremes() -> None:
    assert between(np.array([2.0, 4.0, 3.0])).tolist() == [0, 1, 0.5] and between(np.ones(2)).tolist() == [0, 0]


@pytest.mark.parametrize("name", KINDS)
def test_nothing_is_known_before_the_window_is_full(name: str) -> None:
    method, session = method_of(name)
    first, second = [method.observe(frame) for frame in frames(2)]
    assert set(first.components) == set(second.components) == set(method.components)
    assert all(map(math.isnan, first.components.values())) and not (first.regions or first.maps)
    assert all(map(math.isfinite, second.components.values())) and session.n_runs == 1
    method.reset()
    assert all(map(math.isnan, method.observe(frames(1)[0]).components.values()))


def test_the_worst_patch_is_the_region_in_pixels_of_the_camera_and_the_worst_four_are_the_score() -> None:
    method, _ = method_of("desd", off_by(appearance={(1, 2): 0.5, (0, 0): 0.25}), change_of=None)
    seen = [method.observe(frame) for frame in frames(2)][-1]
    assert seen.components == {"appearance": pytest.approx((0.25 + 0.0625 + 0 + 0) / 4)}
    [region] = seen.regions
    assert (region.x0, region.y0, region.x1, region.y1) == (32, 16, 48, 32)
    assert seen.region_components["appearance"].tolist() == [pytest.approx(0.078125)]
    assert np.allclose(seen.maps["appearance"], [[0.0625, 0, 0, 0], [0, 0, 0.25, 0]])


def test_a_region_of_each_component_that_has_a_place() -> None:
    method, _ = method_of("stpag", off_by({(0, 0): 0.5}, {(1, 3): -0.25}, odds=4))
    seen = [method.observe(frame) for frame in frames(2)][-1]
    assert seen.components == {"appearance": pytest.approx(0.25 / 4), "motion": pytest.approx(0.0625 / 4), "semantic": 4}
    assert [(region.x0, region.y0) for region in seen.regions] == [(0, 0), (48, 16)]
    assert np.allclose(seen.region_components["appearance"], [0.0625, 0])
    assert np.allclose(seen.region_components["motion"], [0, 0.015625])
    assert set(seen.maps) == {"appearance", "motion"}


def test_odds_of_places_are_scored_where_they_lie() -> None:
    """Four cells of 16 x 16 pixels under eight patches of 8 x 8: a patch has the odds of its cell."""

    def draw(window: np.ndarray) -> dict[str, np.ndarray]:
        odds = np.full((1, 1, 2, 4), 0.125)
        odds[..., 1, 3] = 8
        return {**off_by({(0, 0): 0.5})(window), "semantic": odds}

    method, _ = method_of("stpag", draw, values=(), odds=("semantic",), means={**MEANS, "semantic": 1.0})
    assert method.components == ("appearance", "motion", "semantic")
    seen = [method.observe(frame) for frame in frames(2)][-1]
    assert seen.components["semantic"] == pytest.approx((8 + 3 * 0.125) / 4)
    assert (48, 16) in [(region.x0, region.y0) for region in seen.regions]
    assert np.unravel_index(seen.maps["semantic"].argmax(), (2, 4)) == (1, 3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 0, 4)])
def test_odds_without_places_are_an_error(shape: tuple[int, ...]) -> None:
    method, _ = method_of(
        "stpag",
        lambda window: {**off_by()(window), "semantic": np.ones(shape)},
        values=(), odds=("semantic",), means={**MEANS, "semantic": 1.0},
    )  # fmt: skip
    with pytest.raises(BackendError, match="semantic"):
        [method.observe(frame) for frame in frames(2)]


def test_one_region_carries_both_components_where_both_are_worst() -> None:
    drawn = off_by({(0, 0): 0.1, (1, 1): 0.5}, {(1, 1): 0.5})
    method, _ = method_of("amco", drawn, change_of=None, targets={"appearance": FRAME, "motion": DIFFERENCE})
    seen = [method.observe(frame) for frame in frames(2)][-1]
    assert [(region.x0, region.y0) for region in seen.regions] == [(16, 16)]
    expected = {"motion": 1 / 4, "appearance": (0.5 + 0.02) / 4}
    assert seen.components == pytest.approx(expected)
    assert {name: values.tolist() for name, values in seen.region_components.items()} == {
        name: [pytest.approx(value)] for name, value in expected.items()
    }


def test_a_patch_larger_than_the_picture_is_the_picture() -> None:
    method, _ = method_of("desd", off_by(appearance={(1, 2): 0.5}))
    method._patches = Patches(100, 100, 10, 10)
    method._settings = NetworkSettings(IMAGE, SIZE, 10.0, 1, 2, {"appearance": FRAME}, patches=method._patches)
    [region] = [method.observe(frame) for frame in frames(2)][-1].regions
    assert (region.x0, region.y0, region.x1, region.y1) == (0, 0, *IMAGE)


def test_whole_frames_are_scored_where_there_are_no_patches() -> None:
    scene = NetworkSettings(IMAGE, SIZE, 10.0, 1, 2, {"appearance": FRAME}, means=MEANS)
    method = Desd(scene, Network(Drawing(off_by({(0, 1): 0.5}), "appearance"), scene))
    seen = [method.observe(frame) for frame in frames(2)][-1]
    assert seen.components["appearance"] == pytest.approx(0.25 / 8)
    assert [(r.x0, r.y0, r.x1, r.y1) for r in seen.regions] == [(0, 0, *IMAGE)]


def test_a_dear_network_runs_on_every_other_frame_and_its_scores_stay() -> None:
    method, session = method_of("stpag", every=2)
    seen = [method.observe(frame) for frame in frames(8)]
    assert session.n_runs == 4  # at frames 1, 3, 5, 7
    for i in (1, 3, 5):
        assert seen[i].components == seen[i + 1].components and seen[i].regions == seen[i + 1].regions
        assert "network" in seen[i].stage_ms and "network" not in seen[i + 1].stage_ms
    method.reset()
    assert math.isnan(method.observe(frames(1)[0]).components["motion"])


@pytest.mark.parametrize("name", KINDS)
def test_scores_depend_on_the_past_only(name: str) -> None:
    def draw(window: np.ndarray) -> dict[str, np.ndarray]:
        brightness = window.mean()
        return {
            k: 0 * v + brightness if k != "semantic" else np.full((1, 1), brightness + 2)
            for k, v in off_by()(window).items()
        }

    method, _ = method_of(name, draw)
    past, one, other = frames(4), frames(3, seed=1), frames(3, seed=2)
    seen = []
    for future in (one, other):
        method.reset()
        seen.append([method.observe(frame).components for frame in [*past, *future]])
    assert repr(seen[0][:4]) == repr(seen[1][:4]) and repr(seen[0][4:]) != repr(seen[1][4:])


def test_a_frame_of_another_size_is_refused() -> None:
    method, _ = method_of("maam")
    image = np.zeros((30, 64, 3), dtype=np.uint8)
    with pytest.raises(SourceError, match="frames of 64x30 pixels, the bundle was built for 64x32"):
        method.observe(Frame(image, image[..., 0], 0.0, 0))


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("maam", {"targets": {"flow": DIFFERENCE}}, "'flow' is no output that this method scores"),
        ("maam", {"values": ("semantic",)}, "'semantic' is no output that this method scores"),
        ("maam", {"odds": ("semantic",)}, "'semantic' is no output that this method scores"),
        ("stpag", {"odds": ("semantic",), "values": ()}, "means: 'semantic' is missing"),
        ("desd", {"targets": {"appearance": FRAME, "motion": DIFFERENCE}}, "'motion' is no output"),
        ("amco", {"targets": {"motion": DIFFERENCE}, "change_of": None}, "targets: 'appearance' is missing"),
        ("stpag", {"change_of": "appearance"}, "'change' is no output that this method scores"),
        ("desd", {"means": {"appearance": 1.0}}, "means: 'change' is missing"),
        ("stpag", {"targets": {}}, "targets: 'appearance' is missing"),
        ("maam", {"means": {"appearance": 1.0}}, "means: 'motion' is missing"),
        ("desd", {"means": {}}, "means: 'appearance' is missing"),
    ],
)
def test_settings_of_another_method_are_refused_on_one_line(name: str, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleFormatError, match=said) as refused:
        method_of(name, **changed)
    assert str(refused.value).startswith("preprocessing.json: ") and "\n" not in str(refused.value)


def test_the_self_test_sees_a_network_that_draws_something_else() -> None:
    """Golden arrays hold means of the pictures: errors alone would not show two that are as wrong as each other."""
    seen = frames(4)
    right, left = (method_of("desd", off_by({(0, 0): error}), change_of=None)[0].golden(seen) for error in (0.5, -0.5))
    assert np.allclose(right["components"], left["components"], equal_nan=True)
    assert right["embedding.appearance"].shape == (3, 72) and not np.allclose(
        right["embedding.appearance"], left["embedding.appearance"], atol=0.1
    )

"""A trained network on a stream: what it should have drawn, what it sees, what it may answer, how far it is off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from edge_vad.backends.base import Backend
from edge_vad.errors import BackendError, BundleFormatError
from edge_vad.networks import FRAMES, Network, NetworkSettings, Target, Window, patch_errors, picture, planes
from edge_vad.patches import Patches
from edge_vad.strict import from_plain, to_plain

SETTINGS = NetworkSettings((32, 16), (16, 8), 10.0, 3, 2, {"appearance": Target(1, 2)})
PLAIN = to_plain(SETTINGS)


class Scripted(Backend):
    """Answers with the arrays that it was given."""

    def __init__(self, answers: Mapping[str, np.ndarray], *, threads: int = 1, device: str = "cpu") -> None:
        self.answers, self.asked = dict(answers), []  # type: ignore[var-annotated]
        self.outputs = tuple(answers)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.asked.append(inputs)
        return self.answers


def settings(**changed: Any) -> NetworkSettings:
    return from_plain(NetworkSettings, {**PLAIN, **changed}, "preprocessing.json", BundleFormatError)


def flat(*values: float, shape: tuple[int, int] = (8, 16)) -> np.ndarray:
    """Frames (n, 3, h, w) of one colour each."""
    return np.stack([np.full((3, *shape), value, dtype=np.float32) for value in values])


def test_a_target_is_frames_or_their_difference_or_its_size() -> None:
    window = flat(1, 4, 2, 7)[None]
    for target, expected in (
        (Target(0, 2), [1, 4]),
        (Target(1, 4, "difference"), [3, -2, 5]),
        (Target(1, 4, "change"), [3, 2, 5]),
        (Target(3, 4, "difference", power=1), [5]),
    ):
        wanted = target.of(window)
        assert wanted.shape == (1, len(expected), 3, 8, 16) and wanted[0, :, 0, 0, 0].tolist() == expected
    assert window[0, :, 0, 0, 0].tolist() == [1, 4, 2, 7]  # left as it was


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ((0, 1, "difference"), "start must lie in 1..255, not 0"),
        ((0, 1, "change"), "start must lie in 1..255"),
        ((2, 2), "stop must lie in 3..256, not 2"),
        ((-1, 2), "start must lie in 0..255"),
        ((0, 1, "frames", 3), "power must lie in 1..2, not 3"),
        ((0, 1, "frames", 0), "power must lie in 1..2"),
        ((0, 2, "frames", 1, 3), "newest must lie in 0..2, not 3"),
    ],
)
def test_targets_that_are_none(wrong: tuple[Any, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Target(*wrong)


def test_a_picture_is_the_mean_of_what_it_stands_for() -> None:
    """A board of single black and white pixels is grey from wherever it is looked at: samples of it would flicker."""
    rows, columns = np.indices((120, 180))
    for moved in range(3):
        board = np.where((rows + columns + moved) % 2, 255, 0).astype(np.uint8)[..., None].repeat(3, axis=2)
        seen = picture(board, (45, 30))
        assert seen.shape == (30, 45, 3) and seen.dtype == np.uint8
        assert seen.min() >= 126 and seen.max() <= 128


def test_a_thin_line_that_moves_by_a_pixel_does_not_vanish() -> None:
    brightness = []
    for column in range(40, 48):
        image = np.zeros((120, 180, 3), dtype=np.uint8)
        image[:, column] = 200
        brightness.append(picture(image, (45, 30)).astype(int).sum())
    assert min(brightness) > 0.9 * max(brightness) > 0


@pytest.mark.parametrize("size", [(96, 64), (180, 120), (200, 140), (64, 96), (16, 16)])
def test_a_picture_of_any_size_keeps_its_left_and_right(size: tuple[int, int]) -> None:
    image = np.zeros((120, 180, 3), dtype=np.uint8)
    image[:, 90:] = 255, 128, 0
    seen = picture(image, size)
    assert seen.shape == (size[1], size[0], 3)
    assert not seen[:, 0].any() and seen[:, -1].tolist() == [[255, 128, 0]] * size[1]


def test_planes_lie_between_minus_one_and_one_channels_first() -> None:
    image = np.zeros((2, 3, 3), dtype=np.uint8)
    image[0, 1] = 255, 51, 0
    found = planes(image)
    assert found.shape == (3, 2, 3) and found.dtype == np.float32
    assert found[:, 0, 1].tolist() == pytest.approx([1, 51 / 127.5 - 1, -1]) and found[0, 1, 2] == -1


def test_a_window_is_full_after_its_frames_and_forgets_the_oldest() -> None:
    window = Window(settings(n_frames=3))
    frames = [np.full((16, 32, 3), value, dtype=np.uint8) for value in (0, 51, 102, 255)]
    assert window.add(frames[0]) is None and window.add(frames[1]) is None
    first, second = window.add(frames[2]), window.add(frames[3])
    assert first is not None and second is not None and first.shape == (1, 3, 3, 8, 16)
    assert first[0, :, 0, 0, 0].tolist() == pytest.approx([-1, -0.6, -0.2])
    assert second[0, :, 2, 7, 15].tolist() == pytest.approx([-0.6, -0.2, 1])
    window.reset()
    assert window.add(frames[0]) is None


def test_a_network_gives_its_pictures_and_values() -> None:
    drawn = flat(0.5)[None]
    session = Scripted({"appearance": drawn, "odds": np.array([[3]], dtype=np.float32), "more": np.zeros(1)})
    window = flat(0, 1)[None]
    found = Network(session, settings(values=["odds"]))(window)
    assert set(found) == {"appearance", "odds"} and session.asked[0][FRAMES] is window
    assert np.array_equal(found["appearance"], drawn[0]) and found["odds"].tolist() == [3]


def test_a_network_without_one_of_the_outputs_is_refused() -> None:
    for answers, changed in (({}, {}), ({"appearance": flat(0)[None]}, {"values": ["odds"]})):
        with pytest.raises(BackendError, match="the network has no output '(appearance|odds)'; build the bundle again"):
            Network(Scripted(answers), settings(**changed))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (flat(0, 0)[None], r"gives \(2, 3, 8, 16\) as 'appearance', not \(1, 3, 8, 16\)"),
        (flat(0, shape=(8, 8))[None], r"gives \(1, 3, 8, 8\) as 'appearance'"),
        (flat(0), "no float32 values of 5 dimensions as 'appearance'"),
        (flat(0)[None].astype(np.float64), "no float32 values of 5 dimensions"),
        (flat(np.nan)[None], "numbers beyond 1e\\+09, or none, as 'appearance'"),
        (flat(np.inf)[None], "numbers beyond"),
    ],
)
def test_an_answer_of_another_shape_or_of_no_numbers_is_refused(answer: np.ndarray, said: str) -> None:
    with pytest.raises(BackendError, match=said) as refused:
        Network(Scripted({"appearance": answer}), SETTINGS)(flat(0, 1)[None])
    assert "\n" not in str(refused.value)


def test_a_value_that_is_no_number_is_refused() -> None:
    network = Network(Scripted({"appearance": flat(0)[None], "odds": flat(0)}), settings(values=["odds"]))
    with pytest.raises(BackendError, match="2 dimensions as 'odds'"):
        network(flat(0, 1)[None])


def errors_of(target: Target, window: np.ndarray, found: np.ndarray, patches: Patches | None = None) -> np.ndarray:
    made = NetworkSettings((32, 16), (16, 8), 10.0, 1, window.shape[1], {"out": target}, patches=patches)
    return patch_errors(made, window, {"out": found})["out"]


def test_patch_errors_of_frames_by_hand() -> None:
    """Off by 0.5 in one of three channels of the left half of one of two frames."""
    window, found = flat(0, 0)[None], flat(0, 0)
    found[1, 0, :, :8] = 0.5
    halves = Patches(8, 8, 8, 8)
    assert errors_of(Target(0, 2), window, found, halves)[0].tolist() == pytest.approx([0.25 / 6, 0])
    assert errors_of(Target(0, 2, power=1), window, found, halves)[0].tolist() == pytest.approx([0.5 / 6, 0])
    assert errors_of(Target(0, 2), window, found)[0].tolist() == pytest.approx([0.25 / 12])  # the whole frame


def test_only_the_newest_frames_count_where_a_target_says_so() -> None:
    window, found = flat(0, 0, 0)[None], flat(0.5, 0.25, 1)
    for newest, expected in ((0, (0.25 + 0.0625 + 1) / 3), (1, 1.0), (2, (0.0625 + 1) / 2), (3, (0.25 + 0.0625 + 1) / 3)):
        assert errors_of(Target(0, 3, newest=newest), window, found).item() == pytest.approx(expected)


def test_patch_errors_of_a_difference_by_hand() -> None:
    """It falls by 1 and should be -1; +0.5 was found."""
    window, found = flat(0.5, -0.5)[None], flat(0.5)
    for power, expected in ((1, 1.5), (2, 2.25)):
        assert errors_of(Target(1, 2, "difference", power), window, found).tolist() == [[expected]]


def test_of_a_change_only_the_sum_over_a_patch_counts() -> None:
    """What moved a little beside where it should have been found is no error; twice as much of it is."""
    window = flat(0, 0)[None]
    window[0, 1, :, :, 0:4] = 0.5
    beside, twice = flat(0), flat(0)
    beside[..., 4:8] = 0.5
    twice[..., 0:8] = 0.5
    halves = Patches(8, 8, 8, 8)
    change = Target(1, 2, "change", power=1)
    assert errors_of(change, window, beside, halves).tolist() == [[0, 0]]
    assert errors_of(change, window, twice, halves).tolist() == [[0.25, 0]]
    assert errors_of(Target(1, 2, "change"), window, twice, halves).tolist() == [[0.0625, 0]]
    assert errors_of(Target(1, 2, "difference", 1), window, beside, halves).tolist() == [[0.5, 0]]


def test_of_drawn_frames_their_change_counts_in_sum_too() -> None:
    """A block appears in the left half. Drawn there, or beside, it changes as much; drawn paler, or not at all, less."""
    window = flat(0.25, 0)[None]
    window[0, 0, :] = 0
    window[0, 1, :, :, 0:4] = 0.5
    drawn = {"right": flat(0), "beside": flat(0), "paler": flat(0), "gone": flat(0)}
    drawn["right"][..., 0:4] = drawn["beside"][..., 4:8] = 0.5
    drawn["paler"][..., 0:4] = 0.25
    halves = Patches(8, 8, 8, 8)
    made = NetworkSettings((32, 16), (16, 8), 10.0, 1, 2, {"out": Target(1, 2)}, patches=halves, change_of="out")
    errors = {name: patch_errors(made, window, {"out": found}) for name, found in drawn.items()}
    assert made.scored == {"out", "change"} == set(errors["right"])
    assert {name: found["change"].tolist() for name, found in errors.items()} == {
        "right": [[0, 0]], "beside": [[0, 0]], "paler": [[0.125, 0]], "gone": [[0.25, 0]],
    }  # fmt: skip
    assert errors["beside"]["out"][0, 0] > 0


def test_less_change_than_expected_may_count_less() -> None:
    """The left half changes by 0.5 where none was expected, the right half by none where 0.5 was."""
    window, found = flat(0, 0)[None], flat(0)
    window[0, 1, :, :, :8], found[..., 8:] = 0.5, 0.5
    halves = Patches(8, 8, 8, 8)
    for less in (1.0, 0.5, 0.0):
        for target, change_of in ((Target(1, 2, "change", power=1), None), (Target(1, 2), "out")):
            targets = {"out": target}
            made = NetworkSettings((32, 16), (16, 8), 10.0, 1, 2, targets, patches=halves, change_of=change_of, less=less)
            errors = patch_errors(made, window, {"out": found})["change" if change_of else "out"]
            assert errors.tolist() == [[0.5, 0.5 * less]]


def test_errors_leave_the_window_and_the_pictures_as_they_were() -> None:
    generator = np.random.default_rng(3)
    window, found = generator.random((1, 2, 3, 8, 16), dtype=np.float32), generator.random((1, 3, 8, 16), dtype=np.float32)
    before = window.copy(), found.copy()
    for kind in ("frames", "difference", "change"):
        for power in (1, 2):
            errors = errors_of(Target(1, 2, kind, power), window, found, Patches(4, 4, 1, 1))  # type: ignore[arg-type]
            assert errors.shape == (5, 13) and errors.dtype == np.float32 and (errors >= 0).all()
    whole = NetworkSettings((32, 16), (16, 8), 10.0, 1, 2, {"out": Target(1, 2)}, change_of="out")
    assert patch_errors(whole, window, {"out": found})["change"].dtype == np.float32
    assert np.array_equal(window, before[0]) and np.array_equal(found, before[1])


def test_settings_come_back_as_they_were_written() -> None:
    whole = settings(
        patches={"width": 8, "height": 8, "step_x": 2, "step_y": 2}, means={"appearance": 0.01}, values=["odds"]
    )
    assert from_plain(NetworkSettings, to_plain(whole), "again", BundleFormatError) == whole
    assert whole.period_s == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"image_size": [8, 200]}, "image_width must lie in 16..16384, not 8"),
        ({"image_size": [200]}, "image_size: expected 2 values"),
        ({"size": [16, 5000]}, "height must lie in 8..4096, not 5000"),
        ({"fps": 0.0}, "fps must lie in"),
        ({"fps": float("nan")}, "fps must lie in .*nan"),
        ({"stride": 0}, "stride must lie in 1..1000, not 0"),
        ({"every": 0}, "every must lie in 1..1000"),
        ({"n_frames": 65}, "n_frames must lie in 1..64, not 65"),
        ({"n_frames": 2.5}, "n_frames: expected int"),
        ({"share": 1.5}, "share must lie in 0..1"),
        ({"means": {"appearance": 0.0}}, "appearance must lie in"),
        ({"means": {"appearance": float("nan")}}, "appearance must lie in"),
        ({"n_frames": 1}, "targets.appearance: frame 2 of a window of 1"),
        ({"targets": {"a": {"start": 0, "stop": 1, "kind": "flow"}}}, "targets.a: kind: 'flow' is not allowed"),
        ({"targets": {"a": {"start": 0, "stop": 1, "kind": "change"}}}, "targets.a: start must lie in 1..255"),
        ({"targets": {"a": {"start": 0}}}, "targets.a: the key 'stop' is missing"),
        ({"patches": {"width": 0, "height": 8, "step_x": 2, "step_y": 2}}, "patches: width must lie in"),
        ({"change_of": "motion"}, "change_of: 'motion' is no output that draws frames behind others"),
        ({"targets": {"a": {"start": 0, "stop": 1}}, "change_of": "a"}, "change_of: 'a' is no output"),
        ({"strid": 3}, "unknown key 'strid' .did you mean 'stride'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_on_one_line(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleFormatError, match=said) as refused:
        settings(**changed)
    assert str(refused.value).startswith("preprocessing.json: ") and "\n" not in str(refused.value)

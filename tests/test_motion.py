"""RGB difference and the regions around it."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vad.motion import CELL, MotionSettings, RegionProposer, RgbDifference, intersection, suppress
from edge_vad.perspective import Perspective

pytestmark = pytest.mark.usefixtures("inner_loops")
SETTINGS = MotionSettings(threshold=12, lag_s=0.2)
FLAT = Perspective(40.0, 0.0, 100.0)
BACKGROUND = np.random.default_rng(0).integers(90, 110, (120, 160, 3), dtype=np.uint8)


def picture(x: int | None, y: int = 40, colour: tuple[int, int, int] = (220, 40, 40)) -> np.ndarray:
    """The background, with an object of 20 x 40 pixels at (x, y)."""
    image = BACKGROUND.copy()
    if x is not None:
        image[y : y + 40, x : x + 20] = colour
    return image


def feed(difference: RgbDifference, images: list[np.ndarray], period_s: float = 0.1) -> tuple[np.ndarray, list]:
    for index, image in enumerate(images):
        found = difference.update(image, np.ascontiguousarray(image[..., 1]), index * period_s)
    return found


def test_a_moving_square_is_found_where_it_is() -> None:
    moving, _ = feed(RgbDifference(SETTINGS), [picture(30 + 6 * i) for i in range(8)])
    boxes, fraction = RegionProposer(moving.shape, FLAT, SETTINGS).propose(moving)
    assert len(boxes) and np.all((fraction > SETTINGS.min_fraction) & (fraction <= 1))
    true = np.array([[72, 40, 92, 80]], np.float32)
    assert intersection(boxes, true).max() > 0.5 * 20 * 40
    ys, xs = np.nonzero(moving)
    assert CELL * ys.min() >= 40 and CELL * ys.max() < 80 and CELL * xs.max() < 94


def test_a_still_picture_has_no_motion() -> None:
    moving, past = feed(RgbDifference(SETTINGS), [picture(50)] * 8)
    assert not moving.any() and len(past) == RgbDifference.N_LAGS
    boxes, fraction = RegionProposer(moving.shape, FLAT, SETTINGS).propose(moving)
    assert boxes.shape == (0, 4) and fraction.shape == (0,)


def test_a_change_of_colour_alone_is_motion() -> None:
    equal_luma = [picture(50, colour=(200, 100, 100)), picture(50, colour=(100, 100, 200))]
    moving, _ = feed(RgbDifference(SETTINGS), [equal_luma[0]] * 4 + [equal_luma[1]])
    assert moving[20:40, 25:35].all() and not moving[:18].any()


def test_noise_below_the_threshold_is_no_motion() -> None:
    generator = np.random.default_rng(1)
    noisy = [picture(None) + generator.integers(0, 5, BACKGROUND.shape, dtype=np.uint8) for _ in range(8)]
    assert not feed(RgbDifference(SETTINGS), noisy)[0].any()


def test_nothing_is_known_before_one_lag_has_passed() -> None:
    difference = RgbDifference(SETTINGS)
    moving, past = difference.update(picture(10), picture(10)[..., 1], 0.0)
    assert not moving.any() and past == []
    moving, past = difference.update(picture(60), picture(60)[..., 1], 0.05)
    assert not moving.any() and past == []


@pytest.mark.parametrize("period_s", [0.04, 0.1, 0.2])
def test_lags_are_seconds_whatever_the_frame_rate(period_s: float) -> None:
    images = [picture(None)] * (1 + round(0.8 / period_s))
    _, past = feed(RgbDifference(SETTINGS), images, period_s)
    assert [lag for lag, _ in past] == pytest.approx([0.2, 0.4, 0.6])


def test_reset_forgets_the_past() -> None:
    difference = RgbDifference(SETTINGS)
    feed(difference, [picture(10)] * 8)
    difference.reset()
    moving, past = difference.update(picture(100), picture(100)[..., 1], 0.9)
    assert not moving.any() and past == []


def test_boxes_have_the_usual_size_at_their_row() -> None:
    perspective = Perspective(10.0, 0.25, 100.0)
    moving = np.random.default_rng(2).random((60, 80)) < 0.6
    boxes, _ = RegionProposer(moving.shape, perspective, SETTINGS).propose(moving)
    assert len(boxes) > 5
    height = boxes[:, 3] - boxes[:, 1]
    np.testing.assert_allclose(height, perspective.height(boxes[:, 3]), rtol=1e-5)
    np.testing.assert_allclose(boxes[:, 2] - boxes[:, 0], height / 2, rtol=1e-5)
    shared = intersection(boxes, boxes) - np.diag(np.full(len(boxes), np.inf))
    area = height * height / 2
    assert np.all(shared < 0.25 * np.minimum(area[:, None], area[None]) + 1e-3)


def test_no_more_regions_than_allowed() -> None:
    few = MotionSettings(max_regions=3)
    boxes, _ = RegionProposer((60, 80), Perspective(12.0, 0.0, 100.0), few).propose(np.ones((60, 80), bool))
    assert len(boxes) == 3


def test_suppress_keeps_the_best_of_boxes_that_cover_each_other() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [22, 2, 26, 6], [8, 0, 18, 10]], np.float32)
    assert suppress(boxes, 0.25, 10).tolist() == [0, 2, 4]  # the fourth lies inside the third
    assert suppress(boxes, 0.1, 10).tolist() == [0, 2]
    assert suppress(boxes, 0.25, 1).tolist() == [0]
    assert suppress(np.zeros((0, 4), np.float32), 0.25, 5).tolist() == []


def test_intersection_by_hand() -> None:
    a = np.array([[0, 0, 4, 4], [10, 10, 12, 12]], np.float32)
    b = np.array([[2, 1, 8, 3], [4, 0, 8, 4], [11, 0, 20, 20]], np.float32)
    assert intersection(a, b).tolist() == [[4, 0, 0], [0, 0, 2]]

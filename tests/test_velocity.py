"""Speeds measured in the picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_vad.velocity import Search, velocities

pytestmark = pytest.mark.usefixtures("inner_loops")
BOX = np.array([[60, 40, 84, 88]], np.float32)  # 48 pixels tall
TEXTURE = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (200, 240)).astype(np.float32), (0, 0), 2.0)
TEXTURE = np.clip((TEXTURE - TEXTURE.mean()) * 5 + 128, 0, 255)
LAGS = (0.2, 0.4, 0.6)


def moved(dx: float, dy: float) -> np.ndarray:
    """The texture moved by a part of a pixel."""
    shift = np.array([[1.0, 0.0, dx], [0.0, 1.0, dy]])
    picture = cv2.warpAffine(TEXTURE, shift, (240, 200), flags=cv2.INTER_CUBIC)
    return picture.round().clip(0, 255).astype(np.uint8)


def measured(vx: float, vy: float, boxes: np.ndarray = BOX) -> np.ndarray:
    """Velocities of texture that moves by (vx, vy) pixels a second, measured at the end."""
    past = [(lag, moved(-vx * lag, -vy * lag)) for lag in LAGS]
    return velocities(moved(0, 0), past, boxes, Search(max_speed=0.8))


@pytest.mark.parametrize(("vx", "vy"), [(12.0, 0.0), (-17.3, 0.0), (0.0, 9.1), (13.7, -8.4), (-25.5, 11.3)])
def test_a_sub_pixel_shift_is_measured_in_object_heights_per_second(vx: float, vy: float) -> None:
    found = measured(vx, vy)[0]
    wanted = np.array([vx, vy]) / 48
    assert np.linalg.norm(found - wanted) < 0.1 * np.linalg.norm(wanted)


def test_boxes_of_another_shape_are_measured_in_the_same_unit() -> None:
    boxes = np.array([[60, 40, 84, 88], [50, 40, 98, 88], [100, 100, 124, 148]], np.float32)
    found = measured(18.0, 0.0, boxes)
    np.testing.assert_allclose(found[:, 0], 18 / 48, rtol=0.1)


def test_what_stands_still_has_no_speed() -> None:
    assert np.abs(measured(0, 0)).max() < 0.01


def test_a_surface_without_texture_has_no_speed() -> None:
    flat = np.full((200, 240), 120, np.uint8)
    noisy = flat + np.random.default_rng(1).integers(0, 2, flat.shape, dtype=np.uint8)
    assert velocities(flat, [(lag, flat) for lag in LAGS], BOX, Search(0.8)).tolist() == [[0, 0]]
    assert velocities(noisy, [(lag, flat) for lag in LAGS], BOX, Search(0.8)).tolist() == [[0, 0]]


def test_what_was_not_there_before_has_no_speed() -> None:
    other = np.flip(moved(0, 0), axis=(0, 1)).copy()
    assert velocities(moved(0, 0), [(0.2, np.zeros_like(other))], BOX, Search(0.8)).tolist() == [[0, 0]]


def test_no_past_or_no_boxes_give_no_speed() -> None:
    assert velocities(moved(0, 0), [], BOX, Search(0.8)).tolist() == [[0, 0]]
    assert velocities(moved(0, 0), [(0.2, moved(0, 0))], np.zeros((0, 4), np.float32), Search(0.8)).shape == (0, 2)


def test_the_slowest_lag_wins() -> None:
    past = [(0.2, moved(-4.8, 0)), (0.4, moved(-4.8, 0))]  # 24 pixels a second, or 12
    found = velocities(moved(0, 0), past, BOX, Search(0.8))[0]
    assert found[0] == pytest.approx(12 / 48, rel=0.1)

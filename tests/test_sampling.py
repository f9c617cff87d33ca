"""Windows and crops against a slow bilinear reference."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vad.sampling import crops, decimate, resize, windows

pytestmark = pytest.mark.usefixtures("inner_loops")
GENERATOR = np.random.default_rng(3)
PLANE = GENERATOR.integers(0, 256, (20, 30), dtype=np.uint8)
IMAGE = GENERATOR.integers(0, 256, (20, 30, 3), dtype=np.uint8)
BOXES = np.array([[2, 3, 12, 13], [0.5, 1.25, 29.5, 18.75], [-6, -4, 9, 11], [25, 15, 40, 40], [10, 5, 14, 19]], np.float32)


def bilinear(plane: np.ndarray, x: float, y: float) -> float:
    """The value at a point whose pixel centres lie at .5; outside, the edge continues."""
    x, y = (min(max(v - 0.5, 0), n - 1) for v, n in ((x, plane.shape[1]), (y, plane.shape[0])))
    left, top = min(int(x), plane.shape[1] - 2), min(int(y), plane.shape[0] - 2)
    fx, fy = x - left, y - top
    rows = [plane[top + dy, left] * (1 - fx) + plane[top + dy, left + 1] * fx for dy in (0, 1)]
    return float(rows[0] * (1 - fy) + rows[1] * fy)


def reference(plane: np.ndarray, box: np.ndarray, width: int, height: int) -> np.ndarray:
    x0, y0, x1, y1 = (float(v) for v in box)
    xs = [x0 + (x1 - x0) * (i + 0.5) / width for i in range(width)]
    ys = [y0 + (y1 - y0) * (i + 0.5) / height for i in range(height)]
    return np.array([[bilinear(plane, x, y) for x in xs] for y in ys])


def test_windows_are_bilinear() -> None:
    found = windows(PLANE, BOXES, 7, 9)
    assert found.shape == (5, 9, 7) and found.dtype == np.float32
    for window, box in zip(found, BOXES, strict=True):
        np.testing.assert_allclose(window, reference(PLANE, box, 7, 9), atol=0.6)


def test_crops_are_bilinear_in_every_channel() -> None:
    found = crops(IMAGE, BOXES, 8, 6)
    assert found.shape == (5, 6, 8, 3) and found.dtype == np.uint8
    for crop, box in zip(found, BOXES, strict=True):
        for channel in range(3):
            np.testing.assert_allclose(crop[..., channel], reference(IMAGE[..., channel], box, 8, 6), atol=2)


def test_a_window_of_whole_pixels_is_those_pixels() -> None:
    box = np.array([[4, 6, 14, 16]], np.float32)
    np.testing.assert_allclose(windows(PLANE, box, 10, 10)[0], PLANE[6:16, 4:14], atol=1e-3)
    assert np.array_equal(crops(IMAGE, box, 10, 10)[0], IMAGE[6:16, 4:14])


def test_outside_the_picture_its_edge_continues() -> None:
    outside = windows(PLANE, np.array([[-20, 5, -10, 6]], np.float32), 4, 1)[0]
    np.testing.assert_allclose(outside, PLANE[5, 0], atol=0.01)
    assert np.array_equal(
        crops(IMAGE, np.array([[-20, -20, -10, -10]], np.float32), 2, 2)[0], np.broadcast_to(IMAGE[0, 0], (2, 2, 3))
    )


def test_no_boxes_give_no_windows() -> None:
    none = np.zeros((0, 4), np.float32)
    assert windows(PLANE, none, 3, 2).shape == (0, 2, 3)
    assert crops(IMAGE, none, 3, 2).shape == (0, 2, 3, 3)


def test_resize_to_its_own_size_changes_nothing() -> None:
    assert np.abs(resize(IMAGE, 30, 20).astype(int) - IMAGE).max() <= 1
    assert resize(np.full((5, 7, 3), 200, np.uint8), 33, 21).tolist() == np.full((21, 33, 3), 200).tolist()


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_decimate_is_the_mean_of_blocks(factor: int) -> None:
    small = decimate(IMAGE, factor)
    assert small.shape == (20 // factor, 30 // factor, 3) and small.dtype == np.uint8
    for row, column in ((0, 0), (3, 4), (small.shape[0] - 1, small.shape[1] - 1)):
        block = IMAGE[row * factor : (row + 1) * factor, column * factor : (column + 1) * factor].astype(int)
        assert small[row, column].tolist() == (block.sum(axis=(0, 1)) // factor**2).tolist()
    assert decimate(PLANE, factor).shape == (20 // factor, 30 // factor)
    assert decimate(np.full((8, 8), 255, np.uint8), factor).max() == 255


def test_large_blocks_do_not_overflow() -> None:
    assert decimate(np.full((64, 128, 3), 255, np.uint8), 64).tolist() == [[[255] * 3] * 2]

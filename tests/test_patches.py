"""Errors in sliding windows, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vad.patches import Patches, worst, worst_mean

sides = st.integers(1, 12)
ERRORS = np.array([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]], dtype=np.float32)


def test_means_of_windows_by_hand() -> None:
    # Columns 0-1, 1-2 and 2-3; rows 0-1 and 1-2.
    found = Patches(2, 2, 1, 1).means(ERRORS)
    assert found.dtype == np.float32 and found.tolist() == [[3.5, 4.5, 5.5], [7.5, 8.5, 9.5]]


def test_windows_move_by_their_steps_and_stay_inside() -> None:
    # Width 1, height 2: columns 0 and 3, rows 0-1; the next window down would leave the picture.
    assert Patches(1, 2, 3, 2).means(ERRORS).tolist() == [[3, 6]]
    assert Patches(3, 1, 2, 1).means(ERRORS).tolist() == [[2], [6], [10]]


def test_a_window_of_a_pixel_and_of_the_whole_picture() -> None:
    assert np.array_equal(Patches(1, 1, 1, 1).means(ERRORS), ERRORS)
    assert Patches(4, 3, 1, 1).means(ERRORS).tolist() == [[6.5]]


@pytest.mark.parametrize(("width", "height", "shape"), [(9, 9, (1, 1)), (9, 1, (3, 1)), (1, 9, (1, 4))])
def test_a_window_larger_than_the_picture_ends_where_the_picture_does(
    width: int, height: int, shape: tuple[int, int]
) -> None:
    found = Patches(width, height, 1, 1).means(ERRORS)
    assert found.shape == shape and found.mean() == pytest.approx(6.5)


def test_the_box_of_a_window_is_where_its_mean_comes_from() -> None:
    assert Patches(20, 10, 5, 4).box(0, 0) == (0, 0, 20, 10)
    assert Patches(20, 10, 5, 4).box(3, 2) == (10, 12, 30, 22)


def test_the_worst_is_the_highest_and_the_first_of_equals() -> None:
    assert worst(np.array([[1, 2], [5, 3], [4, 5]], dtype=np.float32)) == (1, 0)
    assert worst(np.zeros((3, 2), dtype=np.float32)) == (0, 0)


def test_the_mean_of_the_four_worst_or_of_as_many_as_there_are() -> None:
    assert worst_mean(ERRORS) == pytest.approx((12 + 11 + 10 + 9) / 4)
    assert worst_mean(ERRORS[:1, 1:3]) == pytest.approx(2.5) and worst_mean(ERRORS[:1, :1]) == 1
    assert ERRORS[0].tolist() == [1, 2, 3, 4]  # left as they were


def centre_of_maximum(heat: np.ndarray, size: tuple[int, int]) -> tuple[float, float]:
    """x and y of the middle of the highest cell, as who draws the map takes it."""
    row, column = divmod(int(heat.argmax()), heat.shape[1])
    return (column + 0.5) * size[0] / heat.shape[1], (row + 0.5) * size[1] / heat.shape[0]


def test_scores_spread_by_hand() -> None:
    """Windows of 4 x 4 that move by 4 and by 2 in a picture of 8 x 8: centres x at 2 and 6, y at 2, 4 and 6."""
    scores = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)
    heat = Patches(4, 4, 4, 2).spread(scores, (8, 8))
    # Cells have their centres at x 2, 6 and y 1, 3, 5, 7; of two windows as near (2 and 4 of 3) it is the later.
    assert heat.shape == (4, 2) and heat.dtype == np.float32
    assert heat.tolist() == [[1, 2], [3, 4], [5, 6], [5, 6]]


@given(st.integers(8, 60), st.integers(8, 60), sides, sides, st.integers(0, 10**6))
def test_the_maximum_of_a_map_lies_at_the_centre_of_the_worst_window(
    width: int, height: int, patch_width: int, patch_height: int, chosen: int
) -> None:
    patches = Patches(patch_width, patch_height, max(1, patch_width // 4), max(1, patch_height // 4))
    scores = patches.means(np.full((height, width), 0.5, dtype=np.float32))
    row, column = divmod(chosen % scores.size, scores.shape[1])
    scores[row, column] = 1.0
    heat = patches.spread(scores, (width, height))
    assert heat.max() > 0.95 and heat.min() >= 0.5 * 0.9
    x0, y0, x1, y1 = patches.box(row, column)
    x, y = centre_of_maximum(heat, (width, height))
    assert abs(x - (x0 + min(x1, width)) / 2) <= patches.step_x and abs(y - (y0 + min(y1, height)) / 2) <= patches.step_y


def test_a_window_larger_than_the_picture_covers_the_whole_map() -> None:
    heat = Patches(50, 50, 5, 5).spread(np.array([[2]], dtype=np.float32), (20, 10))
    assert heat.shape == (2, 4) and heat.min() > 1.8 and heat.max() == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("wrong", [(0, 1, 1, 1), (1, 0, 1, 1), (1, 1, 0, 1), (1, 1, 1, 0), (5000, 1, 1, 1), (1, 1, -1, 1)])
def test_windows_and_steps_are_at_least_a_pixel(wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="must lie in 1..4096") as refused:
        Patches(*wrong)
    assert "\n" not in str(refused.value)


@given(sides, sides, sides, sides, st.integers(1, 5), st.integers(1, 5), st.integers(0, 2**31))
def test_every_window_is_the_mean_of_its_box(
    rows: int, columns: int, width: int, height: int, step_x: int, step_y: int, seed: int
) -> None:
    errors = np.random.default_rng(seed).uniform(0, 4, (rows, columns)).astype(np.float32)
    patches = Patches(width, height, step_x, step_y)
    found = patches.means(errors)
    assert found.size and np.isfinite(found).all()
    for row, column in np.ndindex(*found.shape):
        x0, y0, x1, y1 = patches.box(row, column)
        assert found[row, column] == pytest.approx(errors[y0:y1, x0:x1].mean(), rel=1e-5)
    last = patches.box(found.shape[0] - 1, found.shape[1] - 1)
    assert last[2] <= max(columns, width) and last[3] <= max(rows, height)
    assert last[2] + step_x > columns and last[3] + step_y > rows  # no window that would fit is left out

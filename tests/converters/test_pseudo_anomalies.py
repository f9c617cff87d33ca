"""Anomalies made of normal footage: where something moves, inside their mask only, and of the kind that they claim."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from edge_vad.converters.pseudo_anomalies import blended, distorted, hurried, inpainted, motion_of, random_mask

from edge_vad.types import Float32, UInt8

N, HEIGHT, WIDTH = 9, 64, 96


@pytest.fixture
def frames() -> UInt8:
    """A grey texture over which a bright block walks in the lower half, two pixels a frame: (9, 64, 96, 3)."""
    texture = np.random.default_rng(0).integers(90, 110, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    clip = np.repeat(texture[None], N, axis=0)
    for i, frame in enumerate(clip):
        frame[40:56, 30 + 2 * i : 38 + 2 * i] = 220
    return clip


def differences(frames: UInt8) -> Float32:
    return np.abs(np.diff(frames.astype(np.float32), axis=0)) / np.float32(127.5)


def test_masks_lie_where_something_moves(frames: UInt8) -> None:
    for seed in range(20):
        mask, (x, y) = random_mask(np.random.default_rng(seed), motion_of(frames))
        assert mask[y, x] == 1 and 40 <= y < 56 and 30 <= x < 54
        assert set(np.unique(mask)) == {0, 1}


def test_masks_lie_anywhere_where_nothing_moves() -> None:
    places = {random_mask(np.random.default_rng(s), np.zeros((HEIGHT, WIDTH), np.float32))[1] for s in range(20)}
    assert len({y < HEIGHT / 2 for _, y in places}) == 2 and len({x < WIDTH / 2 for x, _ in places}) == 2


def test_the_inpainted_part_is_the_same_in_all_frames_and_the_rest_as_it_was(frames: UInt8) -> None:
    made = inpainted(np.random.default_rng(1), frames)
    assert made.shape == frames.shape and made.dtype == np.uint8
    touched = (made != frames).any(axis=(0, 3))
    assert 0 < touched.mean() < 0.3


def test_what_is_blended_in_slides(frames: UInt8) -> None:
    moved = 0
    for seed in range(10):
        made = blended(np.random.default_rng(seed), frames)
        touched = np.abs(made.astype(int) - frames).max(axis=3) > 8
        assert made.shape == frames.shape and made.dtype == np.uint8 and touched.mean() < 0.5
        columns = [np.flatnonzero(t.any(axis=0)).mean() for t in touched[[0, -1]] if t.any()]
        moved += len(columns) == 2 and abs(columns[0] - columns[1]) > 2
    assert moved >= 5


def test_hurried_motion_is_that_of_more_frames(frames: UInt8) -> None:
    usual = differences(frames)
    made = [hurried(np.random.default_rng(seed), usual, frames) for seed in range(10)]
    assert all(m.shape == usual.shape and m.dtype == np.float32 for m in made)
    grown = [m.sum() / usual.sum() for m in made]
    assert min(grown) > 0.99 and max(grown) > 1.3  # twice or three times as far: more pixels change
    assert max(m.max() for m in made) <= usual.max() + 1e-3  # and none more than they can


@pytest.mark.parametrize("make", [hurried, distorted])
def test_motion_outside_the_mask_stays(
    make: Callable[[np.random.Generator, Float32, UInt8], Float32], frames: UInt8
) -> None:
    usual = differences(frames)
    made = make(np.random.default_rng(2), usual, frames)
    assert not np.array_equal(made, usual)
    assert np.array_equal(made[:, :30], usual[:, :30])  # masks are at most 0.4 of the height around what moves


@pytest.mark.parametrize("make", [blended, inpainted])
def test_a_seed_decides(make: Callable[[np.random.Generator, UInt8], UInt8], frames: UInt8) -> None:
    one, same, other = (make(np.random.default_rng(seed), frames) for seed in (5, 5, 6))
    assert np.array_equal(one, same) and not np.array_equal(one, other)

"""Which region continues which."""

from __future__ import annotations

import numpy as np

from edge_vad.tracks import link


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


STILL = np.zeros((3, 2), np.float32)


def test_a_region_continues_the_one_it_overlaps_most() -> None:
    before = boxes((0, 0, 10, 20), (40, 0, 50, 20))
    now = boxes((42, 0, 52, 20), (1, 1, 11, 21), (80, 0, 90, 20))
    assert link(now, before, STILL, 0.2).tolist() == [1, 0, -1]


def test_a_fast_region_is_found_along_its_own_velocity() -> None:
    before, now = boxes((0, 0, 10, 20)), boxes((20, 0, 30, 20))
    assert link(now, before, np.array([[0.0, 0.0]], np.float32), 0.5).tolist() == [-1]
    assert link(now, before, np.array([[2.0, 0.0]], np.float32), 0.5).tolist() == [0]  # 2 heights a second: 20 pixels


def test_little_overlap_is_no_continuation() -> None:
    before = boxes((0, 0, 10, 10))
    velocity = np.zeros((1, 2), np.float32)
    assert link(boxes((5, 0, 15, 10)), before, velocity, 0.1).tolist() == [0]  # a third
    assert link(boxes((6, 0, 16, 10)), before, velocity, 0.1).tolist() == [-1]  # a quarter


def test_nothing_before_or_nothing_now() -> None:
    assert link(boxes((0, 0, 1, 1)), boxes(), STILL[:1], 0.1).tolist() == [-1]
    assert link(boxes(), boxes((0, 0, 1, 1)), STILL[:0], 0.1).tolist() == []

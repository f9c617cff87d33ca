"""The ruler: how tall an object usually is."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vad.perspective import MIN_HEIGHT, Perspective, fit_perspective


def test_the_line_of_the_footage_is_found_among_merged_blobs() -> None:
    generator = np.random.default_rng(0)
    feet = generator.uniform(40, 240, 2000)
    single = 10 + 0.25 * feet
    heights = single * np.where(
        generator.random(2000) < 0.3, generator.uniform(1.3, 2.5, 2000), generator.normal(1, 0.05, 2000)
    )
    fitted = fit_perspective(feet, heights, 240)
    for row in (60, 150, 230):
        assert fitted.height(np.array(row)) == pytest.approx(10 + 0.25 * row, rel=0.06)


def test_too_few_blobs_give_one_height_everywhere() -> None:
    fitted = fit_perspective(np.array([10.0, 200.0]), np.array([30.0, 30.0]), 240)
    assert fitted.height(np.array([10, 230])).tolist() == [30, 30]
    assert fit_perspective(np.zeros(0), np.zeros(0), 240).height(np.array(100)) == 40


def test_a_camera_that_looks_down_has_one_height() -> None:
    feet = np.linspace(10, 230, 200)
    fitted = fit_perspective(feet, 60 - 0.1 * feet, 240)
    assert fitted.slope == 0 and 35 < fitted.height(np.array(100)) < 60


def test_heights_stay_between_what_can_be_seen_and_most_of_the_picture() -> None:
    steep = Perspective(-50.0, 1.0, 144.0)
    assert steep.height(np.array([0, 62, 100, 240])).tolist() == [MIN_HEIGHT, MIN_HEIGHT, 50, 144]

"""What normal footage tells about a scene."""

from __future__ import annotations

import numpy as np
import pytest
from edge_vad.converters.measure import measure_perspective, measure_speed, noise_threshold, working_factor

from edge_vad.motion import MotionSettings
from edge_vad.perspective import Perspective
from edge_vad.types import Frame

FPS = 10.0
MOTION = MotionSettings(threshold=20, lag_s=0.2)
GENERATOR = np.random.default_rng(0)
FIGURE = GENERATOR.integers(0, 256, (80, 40, 3), dtype=np.uint8)


def walk(row: int, height: int, speed: float, n: int = 40) -> list[Frame]:
    """A textured figure of ``height`` pixels whose feet are at ``row`` walks ``speed`` heights per second."""
    import cv2

    figure = cv2.resize(FIGURE, (height // 2, height), interpolation=cv2.INTER_AREA)
    frames = []
    for i in range(n):
        image = np.full((240, 360, 3), 100, np.uint8)
        x = 20 + round(speed * height * i / FPS)
        image[row - height : row, x : x + height // 2] = figure
        frames.append(Frame(image, np.ascontiguousarray(image[..., 1]), i / FPS, i))
    return frames


def noisy(deviation: float) -> list[Frame]:
    def one(i: int) -> Frame:
        image = np.clip(GENERATOR.normal(120, deviation, (120, 160, 3)), 0, 255).astype(np.uint8)
        return Frame(image, image[..., 1], i / FPS, i)

    return [one(i) for i in range(10)]


@pytest.mark.parametrize(("height", "factor"), [(120, 1), (240, 1), (479, 1), (480, 2), (720, 3), (1080, 4)])
def test_pictures_are_brought_to_240_rows_or_a_little_more(height: int, factor: int) -> None:
    assert working_factor(height) == factor


def test_more_noise_needs_a_higher_threshold() -> None:
    quiet, loud = noise_threshold(noisy(1), 1), noise_threshold(noisy(8), 1)
    assert quiet == 12 < loud <= 40
    assert noise_threshold([], 1) == 12 and noise_threshold(noisy(100), 1) == 40


def test_the_perspective_is_that_of_the_figures() -> None:
    clips = [walk(row, round(10 + 0.25 * row), 0.5) for row in (100, 140, 180, 220)]
    fitted = measure_perspective(clips, 1, MOTION, 240)
    for row in (110, 160, 215):
        assert float(fitted.height(np.array(row))) == pytest.approx(10 + 0.25 * row, rel=0.2)


def test_the_usual_speed_is_that_of_the_figures_and_sets_the_lag() -> None:
    perspective = Perspective(50.0, 0.0, 144.0)
    slow, fast = (measure_speed([walk(180, 50, speed)], 1, MOTION, perspective, FPS, 1)[0] for speed in (0.3, 0.9))
    assert slow.usual_speed == pytest.approx(0.3, rel=0.2)
    assert fast.usual_speed == pytest.approx(0.9, rel=0.2)
    assert slow.lag_s > fast.lag_s >= 1 / FPS
    assert slow.max_speed > slow.usual_speed and fast.max_speed > fast.usual_speed


def test_footage_without_motion_is_measured_without_an_error() -> None:
    still = [walk(180, 50, 0.0)]
    assert measure_perspective(still, 1, MOTION, 240).height(np.array(100)) == 40
    motion, stride = measure_speed(still, 1, MOTION, Perspective(50.0, 0.0, 144.0), FPS, 2)
    assert motion.lag_s == pytest.approx(0.2) and stride == 2


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("speed", [0.2, 0.5, 0.9])
def test_a_lag_is_a_multiple_of_the_processed_frames(speed: float, stride: int) -> None:
    motion, chosen = measure_speed([walk(180, 50, speed)], 1, MOTION, Perspective(50.0, 0.0, 144.0), FPS, stride)
    assert 1 <= chosen <= stride
    lag_frames = motion.lag_s * FPS
    assert lag_frames / chosen == pytest.approx(round(lag_frames / chosen)) and lag_frames >= chosen

"""What normal footage tells about a scene before anything is learned: noise, perspective, usual speed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from edge_vad.motion import CELL, MotionSettings, RegionProposer, RgbDifference
from edge_vad.perspective import Perspective, fit_perspective
from edge_vad.plugins import require
from edge_vad.sampling import decimate
from edge_vad.streams import working_luma
from edge_vad.types import Float32, Frame
from edge_vad.velocity import Search, velocities

ROWS = 240  # working pictures have at least this many rows where the camera gives them
MIN_BLOB = 15  # motion pixels
CLOSING = (2, 3)  # motion pixels; joins the parts of one body
STEP = 0.05  # object heights: how far a usual object should move in one lag
MAX_LAG_FRAMES = 5
SPEED_MARGIN = 3.5  # search range, in 90th percentiles of normal speed


def working_factor(height: int) -> int:
    """Image pixels per working pixel for frames of ``height`` rows."""
    return max(1, height // ROWS)


def noise_threshold(frames: Iterable[Frame], factor: int) -> int:
    """Grey levels above which a difference of neighbouring frames is motion: six deviations of the still pixels."""
    deviations = []
    before = None
    for frame in frames:
        small = decimate(decimate(frame.image, factor), CELL).astype(np.int16)
        if before is not None:
            deviations.append(float(np.median(np.abs(small - before).max(axis=2))) * 1.4826)
        before = small
    return int(np.clip(6 * np.median(deviations), 12, 40)) if deviations else 12


def measure_perspective(clips: Iterable[Iterable[Frame]], factor: int, motion: MotionSettings, n_rows: int) -> Perspective:
    """Fit the usual object height to the moving blobs of clips; n_rows: rows of the working picture."""
    cv2 = require("cv2", "opencv-python-headless", "edge-vad build")
    feet: list[float] = []
    heights: list[float] = []
    kernel = np.ones(CLOSING[::-1], dtype=np.uint8)
    for frames in clips:
        difference = RgbDifference(motion)
        for frame in frames:
            image = decimate(frame.image, factor)
            moving, past = difference.update(image, working_luma(frame, image), frame.timestamp)
            if len(past) < 2:
                continue
            closed = cv2.morphologyEx(moving.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
            stats = cv2.connectedComponentsWithStats(closed)[2][1:]
            x, y, w, h, area = stats.T
            inside = (x > 0) & (y > 0) & (x + w < moving.shape[1]) & (y + h < moving.shape[0])
            upright = inside & (area > MIN_BLOB) & (h > w)
            feet.extend((y + h)[upright] * CELL)
            heights.extend(h[upright] * CELL)
    return fit_perspective(np.array(feet, dtype=np.float64), np.array(heights, dtype=np.float64), n_rows)


def measure_speed(
    clips: Iterable[Iterable[Frame]],
    factor: int,
    motion: MotionSettings,
    perspective: Perspective,
    fps: float,
    stride: int,
) -> tuple[MotionSettings, int]:
    """Lag, usual and largest speed for the footage, and the stride that fits: a usual object moves STEP in one lag.

    Slow objects (or fast cameras) need longer lags to move measurably at all, fast ones shorter lags and wider searches.
    The lag is a multiple of ``stride`` frames (which shrinks where one lag is shorter): only processed frames are kept.
    """
    wide = replace(motion, lag_s=2 / fps, max_speed=0.25 * fps)
    speeds = []
    for frames in clips:
        speeds += [speed for speed in _speeds(frames, factor, wide, perspective) if speed > 0.003 * fps]
    if not speeds:
        return wide, min(stride, 2)
    usual, fast = np.quantile(speeds, [0.5, 0.9])
    wanted = int(np.clip(round(STEP * fps / usual), 1, MAX_LAG_FRAMES))
    stride = min(stride, wanted)
    lag_frames = stride * max(1, round(wanted / stride))
    reach = 1.0 / (RgbDifference.N_LAGS * lag_frames / fps)  # one object height at the longest lag bounds the search
    max_speed = float(min(max(SPEED_MARGIN * fast, 4 * usual), reach))
    return replace(motion, lag_s=lag_frames / fps, usual_speed=float(usual), max_speed=max_speed), stride


def _speeds(frames: Iterable[Frame], factor: int, motion: MotionSettings, perspective: Perspective) -> Float32:
    difference = RgbDifference(motion)
    proposer = None
    found = [np.zeros(0, dtype=np.float32)]
    for frame in frames:
        image = decimate(frame.image, factor)
        luma = working_luma(frame, image)
        moving, past = difference.update(image, luma, frame.timestamp)
        proposer = proposer or RegionProposer(moving.shape, perspective, motion)
        if len(past) == RgbDifference.N_LAGS:
            velocity = velocities(luma, past, proposer.propose(moving)[0], Search(motion.max_speed))
            found.append(np.linalg.norm(velocity, axis=1))
    return np.concatenate(found)

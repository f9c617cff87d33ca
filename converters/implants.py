"""Parts of normal footage put where they do not belong, and others put where they do, to train STPAG's discriminator.

Everything that is put in has the same soft border, and much of it is normal: what sets them apart is what lies inside, not
that something was put in. Of another moment of the same place, at the usual speed or standing still: normal, whatever it
covers. Twice as fast, of another size or upside down, sliding without moving itself, or painted over: made up. Brightness
alone is judged: a camera has no colours at night.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from edge_vad.converters.pseudo_anomalies import INPAINT_RADIUS, SCALES, motion_of, random_mask

from edge_vad.plugins import require
from edge_vad.types import Float32, UInt8

SEEN = 3  # frames that are judged together
MOST = 2  # in one window
KINDS = ("usual", "usual", "usual", "hurried", "hurried", "resized", "sliding", "painted")  # as often as they stand here
UPSIDE_DOWN = 0.3  # of the resized ones
STILL = 1 / 3  # of the usual ones: who stops is normal
SLIDE = ((0.02, 0.06), (0.0, 0.015))  # of the picture's height a frame, across and along
SOFT = (0.6, 2.0)  # pixels, of a border


class Implanted(NamedTuple):
    """frames: (b, SEEN, h, w) float32, 0..255; strange: (b, h, w) float32, by how many grey levels they are not normal."""

    frames: Float32
    strange: Float32


def implanted(generator: np.random.Generator, windows: UInt8) -> Implanted:
    """The newest frames of windows (b, n, h, w) uint8 of one camera, n at least 2 SEEN - 1, with up to MOST implants each
    out of any of the windows."""
    made = [_with_implants(generator, window, windows) for window in windows]
    return Implanted(np.stack([frames for frames, _ in made]), np.stack([strange for _, strange in made]))


def _with_implants(generator: np.random.Generator, window: UInt8, windows: UInt8) -> tuple[Float32, Float32]:
    frames = _newest(window)
    strange = np.zeros(window.shape[1:], dtype=np.float32)
    for _ in range(generator.integers(MOST + 1)):
        donor = windows[generator.integers(len(windows))]
        kind = KINDS[generator.integers(len(KINDS))]
        if kind == "usual":
            frames, alpha = _usual(generator, frames, donor)
            strange *= 1 - alpha
            continue
        make = {"hurried": _hurried, "resized": _resized, "sliding": _sliding, "painted": _painted}[kind]
        frames, off = make(generator, frames, donor)
        strange = np.maximum(strange, off)
    return frames, strange


def _usual(generator: np.random.Generator, frames: Float32, donor: UInt8) -> tuple[Float32, Float32]:
    """With a part of the donor's newest frames, or of the last one of them, in its place; and where."""
    alpha, _ = _soft_mask(generator, _newest(donor))
    usual = _newest(donor, 0 if generator.random() < STILL else 1)
    return frames + alpha * (usual - frames), alpha


def _hurried(generator: np.random.Generator, frames: Float32, donor: UInt8) -> tuple[Float32, Float32]:
    """With a part of frames that lie further apart; and by how much those differ from the usual."""
    furthest = (len(donor) - 1) // (SEEN - 1)
    fast = _newest(donor, int(generator.integers(2, furthest + 1)))
    alpha, _ = _soft_mask(generator, fast)
    off: Float32 = (np.abs(fast - _newest(donor)) * alpha).mean(axis=0)
    return frames + alpha * (fast - frames), off


def _resized(generator: np.random.Generator, frames: Float32, donor: UInt8) -> tuple[Float32, Float32]:
    """With a part of the donor larger or smaller than there, sometimes upside down."""
    cv2 = require("cv2", "opencv-python-headless", "pseudo-anomalies")
    source = _newest(donor)
    alpha, (x, y) = _soft_mask(generator, source)
    scale = generator.uniform(*SCALES[generator.integers(len(SCALES))])
    flip = -scale if generator.random() < UPSIDE_DOWN else scale
    way = np.array([[scale, 0, x - scale * x], [0, flip, y - flip * y]], dtype=np.float32)
    size = alpha.shape[::-1]
    drawn = np.stack([cv2.warpAffine(frame, way, size, borderMode=cv2.BORDER_REFLECT) for frame in source])
    return _differing(frames, frames + alpha * (drawn - frames))


def _sliding(generator: np.random.Generator, frames: Float32, donor: UInt8) -> tuple[Float32, Float32]:
    """With a part of one frame of the donor that glides on."""
    cv2 = require("cv2", "opencv-python-headless", "pseudo-anomalies")
    source = _newest(donor)
    alpha, _ = _soft_mask(generator, source)
    still, size = source[generator.integers(SEEN)], alpha.shape[::-1]
    speed = [generator.choice((-1, 1)) * generator.uniform(*limits) * len(alpha) for limits in SLIDE]
    made = []
    for i, frame in enumerate(frames):
        way = np.array([[1, 0, (i - SEEN + 1) * speed[0]], [0, 1, (i - SEEN + 1) * speed[1]]], dtype=np.float32)
        moved = cv2.warpAffine(still, way, size, borderMode=cv2.BORDER_REFLECT)
        made.append(frame + cv2.warpAffine(alpha, way, size) * (moved - frame))
    return _differing(frames, np.stack(made))


def _painted(generator: np.random.Generator, frames: Float32, donor: UInt8) -> tuple[Float32, Float32]:
    """With a part that moves painted over from its border."""
    cv2 = require("cv2", "opencv-python-headless", "pseudo-anomalies")
    mask, _ = random_mask(generator, motion_of(frames))
    pixels = frames.round().astype(np.uint8)
    painted = np.stack([cv2.inpaint(frame, mask, INPAINT_RADIUS, cv2.INPAINT_TELEA) for frame in pixels])
    return _differing(frames, np.where(mask, painted, frames).astype(np.float32))


def _newest(window: UInt8, step: int = 1) -> Float32:
    """SEEN frames, ``step`` apart, the last of them the window's newest: (SEEN, h, w) float32."""
    return window[[len(window) - 1 - step * i for i in reversed(range(SEEN))]].astype(np.float32)


def _soft_mask(generator: np.random.Generator, frames: Float32) -> tuple[Float32, tuple[int, int]]:
    """Where something moves: (h, w) float32 in 0..1; and the pixel (x, y) that it was drawn around."""
    cv2 = require("cv2", "opencv-python-headless", "pseudo-anomalies")
    mask, at = random_mask(generator, motion_of(frames))
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), float(generator.uniform(*SOFT))), at


def _differing(before: Float32, after: Float32) -> tuple[Float32, Float32]:
    off: Float32 = np.abs(after - before).mean(axis=0)
    return after, off

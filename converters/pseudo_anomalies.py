"""Anomalies made of normal footage, to train against (document 002).

They lie where something moves: the document masks what a segmentation network finds, and frame differences stand in for it.
Spatial: the masked part of the frames is inpainted. The document's latent diffusion does not run where this has to. Two
things stand for what it draws: a classical inpainter (Telea, 2004), which leaves a plausible place without the right
texture, and a blend of another part of the clip, of another size, which slides. Temporal: the motion inside a mask is
perturbed, as the document perturbs optical flow: by a smooth distortion of its RGB difference, or by that over more frames,
which is what moves faster would leave.
"""

from __future__ import annotations

import numpy as np

from edge_vad.plugins import require
from edge_vad.types import Float32, UInt8

SIDES = (0.1, 0.4)  # of a mask, as part of the picture's height
INPAINT_RADIUS = 3
DISTORTION = 6.0  # pixels
MIXING = (1.5, 3.0)  # how many times stronger a perturbed difference is
SKIPPED = (2, 3)  # frames between those whose difference is taken for one of neighbours
SCALES = ((0.4, 0.7), (1.4, 2.2))  # of what is blended in
SLIDE = 0.05  # of the picture's height a frame, at most
SOFTNESS = 1.0  # pixels, of a blend's border


def random_mask(generator: np.random.Generator, motion: Float32) -> tuple[UInt8, tuple[int, int]]:
    """A box or an ellipse around a pixel drawn by how much it moves, (h, w): the mask (h, w) uint8, 1 inside, and that
    pixel (x, y). Anywhere where nothing moves."""
    cv2 = require("cv2", "opencv-python-headless", "pseudo-anomalies")
    height, width = motion.shape
    shares = np.cumsum(motion.ravel() + 1e-9, dtype=np.float64)
    y, x = divmod(int(np.searchsorted(shares, generator.random() * shares[-1])), width)
    y = min(y, height - 1)
    mask = np.zeros((height, width), dtype=np.uint8)
    half = (generator.uniform(*SIDES, size=2) * height / 2).astype(int) + 1
    if generator.random() < 0.5:
        cv2.rectangle(mask, (x - half[0], y - half[1]), (x + half[0], y + half[1]), 1, -1)
    else:
        cv2.ellipse(mask, (x, y), (int(half[0]), int(half[1])), float(generator.uniform(0, 180)), 0, 360, 1, -1)
    return mask, (x, y)


def inpainted(generator: np.random.Generator, frames: UInt8) -> UInt8:
    """Frames (n, h, w, 3) uint8 with one mask inpainted in all of them."""
    cv2 = require("cv2", "opencv-python-headless", "pseudo-anomalies")
    mask, _ = random_mask(generator, motion_of(frames))
    return np.stack([cv2.inpaint(frame, mask, INPAINT_RADIUS, cv2.INPAINT_TELEA) for frame in frames])


def blended(generator: np.random.Generator, frames: UInt8) -> UInt8:
    """Frames (n, h, w, 3) uint8 with a moving part of them in another size, and often upside down, on a way of its own."""
    cv2 = require("cv2", "opencv-python-headless", "pseudo-anomalies")
    n, height, width = frames.shape[:3]
    motion = motion_of(frames)
    _, (x, y) = random_mask(generator, motion)
    mask, (to_x, to_y) = random_mask(generator, motion)
    scale = generator.uniform(*SCALES[generator.integers(len(SCALES))])
    flip = -scale if generator.random() < 0.5 else scale
    slide = generator.uniform(-SLIDE, SLIDE, size=2) * (height, height / 3)
    source = frames[generator.integers(n)].astype(np.float32)
    resized = np.array([[scale, 0, to_x - scale * x], [0, flip, to_y - flip * y]], dtype=np.float32)
    drawn = cv2.warpAffine(source, resized, (width, height), borderMode=cv2.BORDER_REFLECT)
    soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), SOFTNESS)
    made = []
    for i, frame in enumerate(frames):
        moved = np.array([[1, 0, (i - n // 2) * slide[0]], [0, 1, (i - n // 2) * slide[1]]], dtype=np.float32)
        alpha = cv2.warpAffine(soft, moved, (width, height))[..., None]
        made.append(frame + alpha * (cv2.warpAffine(drawn, moved, (width, height)) - frame))
    return np.stack(made).round().astype(np.uint8)


def distorted(generator: np.random.Generator, differences: Float32, frames: UInt8) -> Float32:
    """Sizes of RGB differences (n, h, w, 3) with the motion inside a mask displaced, turned back and made stronger."""
    cv2 = require("cv2", "opencv-python-headless", "pseudo-anomalies")
    height, width = differences.shape[1:3]
    mask, _ = random_mask(generator, motion_of(frames))
    coarse = generator.normal(0, DISTORTION, (2, 4, 6)).astype(np.float32)
    shift = [cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC) for field in coarse]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    gain = np.float32(generator.uniform(*MIXING))
    warped = [
        gain * cv2.remap(one, x + shift[0], y + shift[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        for one in differences[:: generator.choice((1, -1))]
    ]
    return np.where(mask[..., None], np.stack(warped), differences).astype(np.float32)


def hurried(generator: np.random.Generator, differences: Float32, frames: UInt8) -> Float32:
    """Sizes of RGB differences (n, h, w, 3), inside a mask of frames that do not follow each other.

    frames: (n + 1, h, w, 3) uint8, whose differences they are.
    """
    mask, _ = random_mask(generator, motion_of(frames))
    skip = int(generator.integers(SKIPPED[0], SKIPPED[1] + 1))
    last = len(frames) - 1
    scale = np.float32(1 / 127.5)
    fast = [
        np.abs(frames[min(i + skip - 1, last)].astype(np.float32) - frames[max(0, min(i - 1, last - skip))]) * scale
        for i in range(1, len(frames))
    ]
    return np.where(mask[..., None], np.stack(fast), differences).astype(np.float32)


def motion_of(frames: UInt8 | Float32) -> Float32:
    """How much every pixel changes over frames (n, h, w, 3), or over their brightness (n, h, w): (h, w) float32."""
    planes = frames[..., 1] if frames.ndim == 4 else frames
    moved: Float32 = np.abs(np.diff(planes.astype(np.float32), axis=0)).sum(axis=0)
    return moved

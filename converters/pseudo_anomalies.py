"""Anomalies made of normal footage, to train against (document 002).

Spatial: a masked part of the frames is inpainted. The document's latent diffusion does not run where this has to; a
classical inpainter (Telea, 2004) fills the mask from its border, which likewise leaves a plausible place without the
right texture. Temporal: the motion inside a mask is perturbed by a smooth distortion of its RGB difference, as the
document perturbs optical flow.
"""

from __future__ import annotations

import numpy as np

from edge_vad.plugins import require
from edge_vad.types import Float32, UInt8

SIDES = (0.1, 0.4)  # of a mask, as part of the picture's height
INPAINT_RADIUS = 3
DISTORTION = 6.0  # pixels
MIXING = (1.5, 3.0)  # how many times stronger a perturbed difference is


def random_mask(generator: np.random.Generator, height: int, width: int) -> UInt8:
    """One to three boxes or ellipses, (h, w) uint8: 1 inside."""
    cv2 = require("cv2", "opencv-python-headless", "pseudo-anomalies")
    mask = np.zeros((height, width), dtype=np.uint8)
    for _ in range(generator.integers(1, 4)):
        half = (generator.uniform(*SIDES, size=2) * height / 2).astype(int) + 1
        x, y = int(generator.integers(0, width)), int(generator.integers(0, height))
        if generator.random() < 0.5:
            cv2.rectangle(mask, (x - half[0], y - half[1]), (x + half[0], y + half[1]), 1, -1)
        else:
            cv2.ellipse(mask, (x, y), (int(half[0]), int(half[1])), float(generator.uniform(0, 180)), 0, 360, 1, -1)
    return mask


def spatial(generator: np.random.Generator, frames: UInt8) -> UInt8:
    """Frames (n, h, w, 3) uint8 with one mask inpainted in all of them."""
    cv2 = require("cv2", "opencv-python-headless", "pseudo-anomalies")
    mask = random_mask(generator, *frames.shape[1:3])
    return np.stack([cv2.inpaint(frame, mask, INPAINT_RADIUS, cv2.INPAINT_TELEA) for frame in frames])


def temporal(generator: np.random.Generator, differences: Float32) -> Float32:
    """Sizes of RGB differences (n, h, w, 3) float32 with the motion inside a mask displaced, turned and made stronger."""
    cv2 = require("cv2", "opencv-python-headless", "pseudo-anomalies")
    height, width = differences.shape[1:3]
    mask = random_mask(generator, height, width)[..., None]
    coarse = generator.normal(0, DISTORTION, (2, 4, 6)).astype(np.float32)
    shift = [cv2.resize(field, (width, height), interpolation=cv2.INTER_CUBIC) for field in coarse]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    gain = np.float32(generator.uniform(*MIXING))
    warped = [
        gain * cv2.remap(one, x + shift[0], y + shift[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        for one in differences[:: generator.choice((1, -1))]
    ]
    return np.where(mask, np.stack(warped), differences).astype(np.float32)

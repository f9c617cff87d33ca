"""The golden self-test: frames in the bundle and what a healthy installation computes from them.

Hashes find a damaged file; this finds the other thing: a wrong backend, a broken integer kernel, swapped colours.
"""

from __future__ import annotations

import numpy as np

from edge_vad.bundle import Bundle
from edge_vad.errors import BundleIntegrityError
from edge_vad.methods.base import Method
from edge_vad.sampling import resize
from edge_vad.types import Frame, UInt8

TOLERANCE = {"fp32": 0.02, "int8": 0.15}  # relative; integer kernels round differently between processors


def golden_frames(images: UInt8, size: tuple[int, int], period_s: float) -> list[Frame]:
    """Frames of ``size`` (width, height) from small stored images (n, h, w, 3) uint8, ``period_s`` seconds apart.

    They are enlarged, so that a few kilobytes cover the whole path from full-size pixels.
    """
    weights = np.array([77, 150, 29], dtype=np.uint32)
    frames = []
    for index, small in enumerate(images):
        image = resize(small, *size)
        luma = ((image.astype(np.uint32) @ weights) >> 8).astype(np.uint8)
        frames.append(Frame(image, luma, index * period_s, index))
    return frames


def check_golden(bundle: Bundle, method: Method) -> None:
    """Run the golden frames; BundleIntegrityError when a value is off by more than the precision's tolerance."""
    stored = bundle.golden()
    images = stored.pop("images")
    width, height, period_s = (float(v) for v in stored.pop("frame"))
    tolerance = TOLERANCE[bundle.manifest["models"].get("encoder", {}).get("precision", "fp32")]
    computed = method.golden(golden_frames(images, (int(width), int(height)), period_s))
    for name, expected in stored.items():
        found = computed.get(name)
        if found is None or found.shape != expected.shape:
            raise BundleIntegrityError(f"golden self-test: {name} is missing or has another shape; build the bundle again")
        unknown = np.isnan(expected)
        error = np.abs(found - expected) / (np.abs(expected) + 1e-3)
        if not np.array_equal(unknown, np.isnan(found)) or np.any(error[~unknown] > tolerance):
            raise BundleIntegrityError(
                f"golden self-test: {name} differs by {float(np.nanmax(error, initial=0.0)):.0%} (allowed {tolerance:.0%}): "
                "this installation computes something else than the one that built the bundle"
            )

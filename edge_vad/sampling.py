"""Windows cut out of a picture at any scale, many at once: crops for the encoder, templates for speeds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vad import kernels
from edge_vad.types import Float32, UInt8


def _grid(start: Float32, step: Float32, n: int, limit: int) -> tuple[NDArray[np.int64], Float32]:
    """Lower neighbour index and fraction of ``n`` sample centres from ``start``, clamped to the picture: both (m, n)."""
    position = start[:, None] + step[:, None] * (np.arange(n, dtype=np.float32) + 0.5) - 0.5
    _clamp(position, 0, limit - 1.001)
    whole = np.floor(position)
    low = whole.astype(np.int64)
    _clamp(low, 0, limit - 2)  # of a box that is not a number, too
    return low, (position - whole).astype(np.float32, copy=False)


def _clamp(values: NDArray[Any], lowest: float, highest: float) -> None:
    """`numpy.clip` in place, which takes four times as long for small arrays."""
    np.maximum(values, lowest, out=values)
    np.minimum(values, highest, out=values)


def windows(plane: UInt8, boxes: Float32, width: int, height: int) -> Float32:
    """Bilinear samples of a plane (H, W) uint8 in boxes (n, 4) x0, y0, x1, y1 -> (n, height, width) float32.

    Outside the picture its edge pixels continue.
    """
    x, fx = _grid(boxes[:, 0], (boxes[:, 2] - boxes[:, 0]) / width, width, plane.shape[1])
    y, fy = _grid(boxes[:, 1], (boxes[:, 3] - boxes[:, 1]) / height, height, plane.shape[0])
    if kernels.LIBRARY:
        return kernels.windows(plane, x, fx, y, fy)
    flat = plane.astype(np.float32).reshape(-1)
    at = y[:, :, None] * plane.shape[1] + x[:, None, :]
    fx, fy = fx[:, None, :], fy[:, :, None]
    top = flat.take(at)  # a third faster than flat[at]
    top += (flat[1:].take(at) - top) * fx
    below = flat[plane.shape[1] :]
    bottom = below.take(at)
    bottom += (below[1:].take(at) - bottom) * fx
    bottom -= top
    bottom *= fy
    top += bottom
    return top


def crops(image: UInt8, boxes: Float32, width: int, height: int) -> UInt8:
    """Bilinear crops of an image (H, W, 3) uint8 in boxes (n, 4) -> (n, height, width, 3) uint8.

    In 8.8 fixed point: the same bits on every processor, compiled or not. In NumPy pixels are mixed as packed 32-bit words,
    several times faster than float planes.
    """
    n_rows, n_columns = image.shape[:2]
    x, fx = _grid(boxes[:, 0], (boxes[:, 2] - boxes[:, 0]) / width, width, n_columns)
    y, fy = _grid(boxes[:, 1], (boxes[:, 3] - boxes[:, 1]) / height, height, n_rows)
    if kernels.LIBRARY:
        return kernels.crops(image, x, fx, y, fy)
    packed = np.empty((n_rows, n_columns, 4), dtype=np.uint8)
    for channel in range(3):  # three times faster than all at once
        packed[:, :, channel] = image[:, :, channel]
    words = packed.reshape(-1).view(np.uint32)
    at = y[:, :, None] * n_columns + x[:, None, :]
    wx = np.round(fx * 256).astype(np.uint32)[:, None, :]
    wy = np.round(fy * 256).astype(np.uint32)[:, :, None]
    top = _mix(words.take(at), words[1:].take(at), wx)
    below = words[n_columns:]
    mixed = _mix(top, _mix(below.take(at), below[1:].take(at), wx), wy)
    return mixed.view(np.uint8).reshape(*mixed.shape, 4)[..., :3]


def resize(image: UInt8, width: int, height: int) -> UInt8:
    """The whole image (H, W, 3) uint8, bilinear -> (height, width, 3) uint8."""
    whole = np.array([[0, 0, image.shape[1], image.shape[0]]], dtype=np.float32)
    return crops(image, whole, width, height)[0]


def _mix(left: NDArray[np.uint32], right: NDArray[np.uint32], weight: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """left * 256 + (right - left) * weight, over 256 and rounded, in each byte of packed pixels (...,).

    Two bytes at a time: the sums lie in 0..255 * 256 + 128, below 16 bits, so that they cannot run into each other.
    """
    even, half, byte = np.uint32(0x00FF00FF), np.uint32(0x00800080), np.uint32(8)
    low, step = left & even, right & even
    step -= low  # may wrap around, and so does the sum back
    step *= weight
    low <<= byte
    low += step
    low += half
    low >>= byte
    low &= even
    high, step = left >> byte, right >> byte
    high &= even
    step &= even
    step -= high
    step *= weight
    high <<= byte
    high += step
    high += half
    high &= ~even
    low |= high
    return low


def decimate(image: UInt8, factor: int) -> UInt8:
    """Mean of factor x factor blocks: (H, W, ...) uint8 -> (H // factor, W // factor, ...) uint8."""
    if factor == 1:
        return image
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    whole = image[: rows * factor, : columns * factor]
    tall = whole[::factor].astype(np.uint16 if factor <= 16 else np.uint32)  # 255 a pixel
    for dy in range(1, factor):  # down first: whole rows lie side by side
        tall += whole[dy::factor]
    total = tall[:, ::factor].copy()
    for dx in range(1, factor):
        total += tall[:, dx::factor]
    return (total // (factor * factor)).astype(np.uint8)

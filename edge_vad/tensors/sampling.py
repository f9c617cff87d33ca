"""`edge_vad.sampling` on tensors: on a CPU the same pixels, bit by bit."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EVEN = 0x00FF00FF  # every second byte of a packed pixel
HALF = 0x00800080


def _grid(start: Tensor, step: Tensor, n: int, limit: int) -> tuple[Tensor, Tensor]:
    """Lower neighbour index and fraction of ``n`` sample centres from ``start``, clamped to the picture: both (m, n)."""
    places = torch.arange(n, dtype=torch.float32, device=start.device) + 0.5
    position = (start[:, None] + step[:, None] * places - 0.5).clamp(0, limit - 1.001)
    low = position.long()
    return low, position - low


def _taken(flat: Tensor, at: Tensor) -> Tensor:
    """Values of a line (m,) at places of any shape; four times as fast as indexing with them."""
    return flat.index_select(0, at.view(-1)).view(at.shape)


def crops(image: Tensor, boxes: Tensor, width: int, height: int) -> Tensor:
    """Bilinear crops of an image (H, W, 3) uint8 in boxes (n, 4) -> (n, height, width, 3) uint8, in 8.8 fixed point."""
    n_rows, n_columns = image.shape[:2]
    words = F.pad(image, (0, 1)).contiguous().view(torch.int32).reshape(-1)
    x, fx = _grid(boxes[:, 0], (boxes[:, 2] - boxes[:, 0]) / width, width, n_columns)
    y, fy = _grid(boxes[:, 1], (boxes[:, 3] - boxes[:, 1]) / height, height, n_rows)
    at = y[:, :, None] * n_columns + x[:, None, :]
    wx = (fx * 256).round().int()[:, None, :]
    wy = (fy * 256).round().int()[:, :, None]
    below = at + n_columns
    top = _mix(_taken(words, at), _taken(words, at + 1), wx)
    mixed = _mix(top, _mix(_taken(words, below), _taken(words, below + 1), wx), wy)
    return mixed.view(torch.uint8).reshape(*mixed.shape, 4)[..., :3]


def resize(image: Tensor, width: int, height: int) -> Tensor:
    """The whole image (H, W, 3) uint8, bilinear -> (height, width, 3) uint8."""
    whole = torch.zeros((1, 4), dtype=torch.float32, device=image.device)
    whole[0, 2], whole[0, 3] = image.shape[1], image.shape[0]
    return crops(image, whole, width, height)[0]


def _mix(left: Tensor, right: Tensor, weight: Tensor) -> Tensor:
    """left * (256 - weight) + right * weight, over 256 and rounded, in each byte of packed pixels (...,) int32.

    A shift of int32 repeats the sign: the masks take those bits away again.
    """
    rest = 256 - weight
    low = (left & EVEN) * rest + (right & EVEN) * weight + HALF
    high = ((left >> 8) & EVEN) * rest + ((right >> 8) & EVEN) * weight + HALF
    return ((low >> 8) & EVEN) | (high & ~EVEN)


def decimate(image: Tensor, factor: int) -> Tensor:
    """Mean of factor x factor blocks: (H, W, ...) uint8 -> (H // factor, W // factor, ...) uint8."""
    if factor == 1:
        return image
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    total = torch.zeros((rows, columns, *image.shape[2:]), dtype=torch.int32, device=image.device)
    for dy in range(factor):
        for dx in range(factor):
            total += image[dy : rows * factor : factor, dx : columns * factor : factor]
    return (total // (factor * factor)).to(torch.uint8)


def luma_of(image: Tensor) -> Tensor:
    """Luma (H, W) uint8 of an image (H, W, 3), as `edge_vad.streams.working_luma` computes it."""
    red, green, blue = image.to(torch.int16).unbind(-1)
    return ((red + 2 * green + blue) >> 2).to(torch.uint8)


def edge_padded(image: Tensor, multiple: int) -> Tensor:
    """An image (H, W, 3) whose edge pixels continue at the right and below until its sides are multiples."""
    rows, columns = (
        torch.arange(side + -side % multiple, device=image.device).clamp(max=side - 1) for side in image.shape[:2]
    )
    return image[rows][:, columns]

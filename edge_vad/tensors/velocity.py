"""`edge_vad.velocity` on tensors: block matching of all regions at once."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from edge_vad.tensors.sampling import windows
from edge_vad.velocity import CONTRAST_FLOOR, HEIGHT, MIN_CORRELATION, VERTICAL, WIDTH, Search


def velocities(now: Tensor, past: list[tuple[float, Tensor]], boxes: Tensor, search: Search) -> Tensor:
    """Robust velocity of each box: (n, 2) float32, object heights per second; see `edge_vad.velocity.velocities`."""
    best = boxes.new_zeros((len(boxes), 2))
    slowest = boxes.new_full((len(boxes),), torch.inf)
    template = windows(now, boxes, WIDTH, HEIGHT)
    template = template - template.mean(dim=(1, 2), keepdim=True)
    for lag_s, luma in past:
        shift, correlation = _match(template, luma, boxes, search.max_speed * lag_s)
        velocity = shift / lag_s
        speed = torch.linalg.vector_norm(velocity, dim=1)
        better = (correlation > MIN_CORRELATION) & (speed < slowest)
        best = torch.where(better[:, None], velocity, best)
        slowest = torch.where(better, speed, slowest)
    return best


def _match(template: Tensor, luma: Tensor, boxes: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Shift (n, 2) in object heights from the past luma to now, and its correlation (n,)."""
    mx, my = math.ceil(reach * HEIGHT), math.ceil(reach * HEIGHT * VERTICAL)
    sx, sy = (boxes[:, 2] - boxes[:, 0]) / WIDTH, (boxes[:, 3] - boxes[:, 1]) / HEIGHT
    around = boxes + torch.stack([-mx * sx, -my * sy, mx * sx, my * sy], dim=1)
    correlation = _correlate(template, windows(luma, around, WIDTH + 2 * mx, HEIGHT + 2 * my))
    flat = correlation.flatten(1)
    peak = flat.argmax(dim=1)
    row, column = peak // correlation.shape[2], peak % correlation.shape[2]
    item = torch.arange(len(boxes), device=boxes.device)
    dx = column + _parabola(correlation[item, row], column) - mx
    dy = row + _parabola(correlation[item, :, column], row) - my
    return torch.stack([-dx * sx / (sy * HEIGHT), -dy / HEIGHT], dim=1), flat[item, peak]


def _correlate(template: Tensor, area: Tensor) -> Tensor:
    """Normalised cross-correlation (n, rows, columns) of zero-mean templates (n, h, w) in areas (n, H, W)."""
    h, w = template.shape[1:]
    shape = area.shape[1:]
    area = area - area.mean(dim=(1, 2), keepdim=True)
    spectrum = torch.fft.rfft2(area) * torch.fft.rfft2(template, s=shape).conj()
    product = torch.fft.irfft2(spectrum, s=shape)[:, : shape[0] - h + 1, : shape[1] - w + 1]
    n_samples = h * w
    total, squares = (_box_sum(values, h, w) for values in (area, area * area))
    energy = (squares - total * total / n_samples).clamp(min=1e-3)
    norm = (template * template).sum(dim=(1, 2)).sqrt()[:, None, None]
    return product / (norm * energy.sqrt() + n_samples * CONTRAST_FLOOR)


def _box_sum(values: Tensor, h: int, w: int) -> Tensor:
    """Sums over every h x w window of (n, H, W)."""
    rows, columns = (_bands(side, length, values.device) for side, length in zip(values.shape[1:], (h, w), strict=True))
    return rows @ values @ columns.T


@lru_cache(maxsize=64)
def _bands(size: int, length: int, device: torch.device) -> Tensor:
    """Matrix (size - length + 1, size): each row sums ``length`` neighbours."""
    start, place = torch.arange(size - length + 1, device=device)[:, None], torch.arange(size, device=device)
    return ((place >= start) & (place < start + length)).float()


def _parabola(line: Tensor, position: Tensor) -> Tensor:
    """Sub-sample offset (n,) of the peak of lines (n, m), in -0.5..0.5; 0 at the border."""
    last = line.shape[1] - 1
    around = torch.stack([position - 1, position, position + 1], dim=1).clamp(0, last)
    left, peak, right = line.gather(1, around).unbind(1)
    bend = left - 2 * peak + right
    inside = (position > 0) & (position < last) & (bend < -1e-6)
    offset = 0.5 * (left - right) / torch.where(inside, bend, -1.0)
    return torch.where(inside, offset.clamp(-0.5, 0.5), 0.0)

"""`edge_vad.tracks` on tensors, and what a track keeps: its last values in rows of one length, the newest last."""

from __future__ import annotations

import torch
from torch import Tensor

from edge_vad.tracks import MIN_OVERLAP


def link(boxes: Tensor, before: Tensor, velocity: Tensor, elapsed_s: float) -> Tensor:
    """For each box (n, 4) the index of the earlier box (m, 4) it continues, or -1; see `edge_vad.tracks.link`."""
    if not len(before):
        return torch.full((len(boxes),), -1, device=boxes.device)
    height = boxes[:, 3:4] - boxes[:, 1:2]
    moved = boxes - (velocity * height * elapsed_s).repeat(1, 2)
    low = torch.maximum(moved[:, None, :2], before[None, :, :2])
    high = torch.minimum(moved[:, None, 2:], before[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(dim=2)
    union = _area(moved)[:, None] + _area(before)[None, :] - shared
    overlap, best = (shared / union.clamp(min=1e-6)).max(dim=1)
    return torch.where(overlap > MIN_OVERLAP, best, -1)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def carried(values: Tensor, before: Tensor) -> Tensor:
    """Values (m, ...) of the tracks that regions continue, (n, ...); anything where ``before`` (n,) is -1."""
    if not len(values):
        return values.new_zeros((len(before), *values.shape[1:]))
    return values[before.clamp(min=0)]


def counted(lengths: Tensor, before: Tensor) -> Tensor:
    """Lengths (m,) of the tracks that regions continue, (n,); 0 for those that continue none."""
    return torch.where(before >= 0, carried(lengths, before), 0)


def appended(history: Tensor, newest: Tensor) -> Tensor:
    """Histories (n, d, ...) with one more value (n, ...); the oldest is dropped."""
    return torch.cat([history[:, 1:], newest[:, None]], dim=1)


def held(history: Tensor, lengths: Tensor) -> Tensor:
    """Which values of histories (n, d, ...) belong to the track: (n, d) bool."""
    depth = history.shape[1]
    return torch.arange(depth, device=history.device)[None] >= depth - lengths[:, None]


def median(history: Tensor, lengths: Tensor) -> Tensor:
    """Median (n, k) of histories (n, d, k); 0 for empty ones. The mean of the middle two where their number is even."""
    ordered = torch.where(held(history, lengths)[..., None], history, torch.inf).sort(dim=1).values
    middle = torch.stack([(lengths - 1).clamp(min=0) // 2, lengths // 2], dim=1)
    both = ordered.gather(1, middle[..., None].expand(-1, -1, history.shape[2])).mean(dim=1)
    return torch.where(lengths[:, None] > 0, both, 0.0)

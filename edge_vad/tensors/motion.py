"""`edge_vad.motion` on tensors: which pixels change. Regions are proposed on the host, from the downloaded mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edge_vad.motion import CELL, Moment, RgbDifference
from edge_vad.tensors.sampling import decimate


class TensorDifference(RgbDifference):
    """Keeps the last moments on the device."""

    def update(self, image: Any, luma: Any, timestamp: float) -> tuple[Any, list[tuple[float, Any]]]:
        """Take one frame of tensors; see `RgbDifference.update`. The mask is a tensor of booleans."""
        now: Any = Moment(timestamp, decimate(image, CELL), luma)
        lags: list[Any] = self.at_lags(timestamp)
        moving = torch.zeros(now.small.shape[:2], dtype=torch.bool, device=image.device)
        for moment in lags[:2]:
            moving |= changed(now.small, moment.small, self._settings.threshold)
        self.keep(now)
        return moving, [(timestamp - m.timestamp, m.luma) for m in lags]


def changed(now: Tensor, before: Tensor, threshold: int) -> Tensor:
    """Where any channel of (h, w, 3) uint8 differs by more than the threshold: (h, w) bool."""
    return (now.to(torch.int16) - before).abs().amax(dim=2) > threshold

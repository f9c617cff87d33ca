"""`edge_vad.motion` on tensors: which pixels change. Regions are proposed on the host, from the downloaded mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edge_vad.motion import CELL, Moment, RgbDifference
from edge_vad.tensors.sampling import decimate
from edge_vad.types import UInt8


class TensorDifference(RgbDifference):
    """Keeps the pictures of the last moments on the device, and their luma on the host, where speeds are measured."""

    def compare(self, image: Tensor, timestamp: float) -> tuple[Tensor, Tensor, list[tuple[float, UInt8]]]:
        """Take one frame (H, W, 3): its block means, which `remember` wants back with its luma; the mask of moving pixels
        and the past of `RgbDifference.update`."""
        small = decimate(image, CELL)
        lags: list[Any] = self.at_lags(timestamp)
        moving = torch.zeros(small.shape[:2], dtype=torch.bool, device=image.device)
        for moment in lags[:2]:
            moving |= changed(small, moment.small, self._settings.threshold)
        return small, moving, [(timestamp - m.timestamp, m.luma) for m in lags]

    def remember(self, small: Any, luma: UInt8, timestamp: float) -> None:
        """Keep a frame that was compared."""
        self.keep(Moment(timestamp, small, luma))


def changed(now: Tensor, before: Tensor, threshold: int) -> Tensor:
    """Where any channel of (h, w, 3) uint8 differs by more than the threshold: (h, w) bool."""
    return (now.to(torch.int16) - before).abs().amax(dim=2) > threshold

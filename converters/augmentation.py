"""Windows of normal footage as the camera could have seen them on another day: more of them than were filmed.

A few clips show few people in few places: a network learns them by heart and draws the next one badly.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

SHIFT = 0.06  # of the picture's sides, at most
GAIN, LIGHT = 0.1, 0.05  # of contrast and brightness, at most


def augmented(frames: Tensor) -> Tensor:
    """Windows (b, n, 3, h, w) in -1..1, each mirrored or not, shifted, and in another light; the same for all its frames.

    Follows torch's seed. Edge pixels continue where a shift leaves the picture.
    """
    return torch.stack([_changed(window, torch.rand(5) * 2 - 1) for window in frames]).clamp_(-1, 1)


def _changed(window: Tensor, chance: Tensor) -> Tensor:
    """chance: (5,) in -1..1, for mirror, shift in x and y, contrast and brightness."""
    height, width = window.shape[-2:]
    mirror, gain, light = bool(chance[0] < 0), 1 + GAIN * float(chance[3]), LIGHT * float(chance[4])
    most_x, most_y = round(SHIFT * width), round(SHIFT * height)
    x, y = most_x + round(float(chance[1]) * most_x), most_y + round(float(chance[2]) * most_y)
    wide = functional.pad(window, (most_x, most_x, most_y, most_y), mode="replicate")
    cut = wide[..., y : y + height, x : x + width]
    return (cut.flip(-1) if mirror else cut) * gain + light

"""Augmented windows: another day of the same camera, the same for all frames of a window."""

from __future__ import annotations

import torch
from edge_vad.converters.augmentation import augmented
from torch import Tensor


def windows(n: int = 1) -> Tensor:
    """A dark picture with one bright column on its left, twice in every window: (n, 2, 3, 32, 48)."""
    frames = torch.full((n, 2, 3, 32, 48), -0.5)
    frames[..., 10] = 0.5
    return frames


def test_all_frames_of_a_window_change_alike_and_stay_in_range() -> None:
    torch.manual_seed(0)
    found = augmented(windows(8) * 2)
    assert found.shape == (8, 2, 3, 32, 48) and found.dtype == torch.float32
    assert torch.equal(found[:, 0], found[:, 1])  # what stood still does so
    assert found.min() >= -1 and found.max() <= 1
    assert len({tuple(row.tolist()) for row in found[:, 0, 0, 0]}) > 4  # windows differ


def test_windows_are_mirrored_and_shifted_a_little() -> None:
    torch.manual_seed(1)
    bright = augmented(windows(64))[:, 0, 0, 16].argmax(dim=1)
    left, right = bright[bright < 24], bright[bright >= 24]
    assert len(left) > 16 and len(right) > 16
    assert left.min() >= 10 - 3 and left.max() <= 10 + 3 and len(left.unique()) > 2  # 6 % of 48
    assert right.min() >= 37 - 3 and right.max() <= 37 + 3


def test_the_light_changes() -> None:
    torch.manual_seed(2)
    dark = augmented(windows(32)).amin(dim=(1, 2, 3, 4))
    assert dark.std() > 0.02 and dark.min() > -0.61 and dark.max() < -0.39


def test_the_seed_decides() -> None:
    made = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        made.append(augmented(windows(4)))
    assert torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])

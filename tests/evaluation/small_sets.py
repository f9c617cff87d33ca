"""Writes tiny data sets: three test clips of small pictures, their masks and labels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

WIDTH, HEIGHT = 48, 32
INTERVALS = {"01": [(3, 6)], "02": [], "10": [(1, 2), (8, 10)]}
N_FRAMES = {"01": 8, "02": 6, "10": 10}


def write_pictures(folder: Path, n: int, suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(n):
        cv2.imwrite(str(folder / f"{index}{suffix}"), np.full((HEIGHT, WIDTH, 3), 40 + 5 * index, np.uint8))


def write_masks(folder: Path, n: int, intervals: list[tuple[int, int]], suffix: str = ".png") -> None:
    """Masks of half the frame's size, the anomaly in the upper left quarter."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(n):
        mask = np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8)
        if any(first <= index + 1 <= last for first, last in intervals):
            mask[: HEIGHT // 4, : WIDTH // 4] = 255
        cv2.imwrite(str(folder / f"{index}{suffix}"), mask)


def labels_json() -> dict[str, object]:
    return {name: {"frames": N_FRAMES[name], "anomalous_1based": INTERVALS[name]} for name in N_FRAMES}


def expected(name: str) -> list[bool]:
    return [any(first <= i <= last for first, last in INTERVALS[name]) for i in range(1, N_FRAMES[name] + 1)]

"""Choosing the regions of a frame on the host or on the device: CPU ms of both, and how many calls the device would get.

    python benchmarks/regions.py

Regions are chosen one after the other: each takes away the candidates that it covers. The tensor version below does that
without asking the host, so it runs as many rounds as there may be regions, whatever there is; on a GPU each of its calls is
the launch of a kernel. Masks of 20 moving people at three sizes; one thread; the least of 30 runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from edge_vad.motion import CELL, MAX_OVERLAP, MotionSettings, RegionProposer
from edge_vad.perspective import Perspective

SIZES = ((90, 60), (180, 120), (240, 135))  # (width, height) of the mask


class Calls(TorchDispatchMode):
    """Counts what torch is asked for."""

    n = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.n += 1
        return function(*args, **(kwargs or {}))


class TensorProposer:
    """`RegionProposer` without a look at any number on the host."""

    def __init__(self, proposer: RegionProposer, settings: MotionSettings) -> None:
        self._settings = settings
        self._corners = [torch.from_numpy(np.ascontiguousarray(c)) for c in proposer._corners]
        self._area, self._boxes = torch.from_numpy(proposer._area), torch.from_numpy(proposer._boxes)
        self._covered = (self._boxes[:, 2] - self._boxes[:, 0]) * (self._boxes[:, 3] - self._boxes[:, 1])

    def propose(self, moving: Tensor) -> Tensor:
        """Numbers of the chosen candidates, best first, (max_regions,); -1 where there are no more."""
        integral = F.pad(moving.int().cumsum(0).cumsum(1), (1, 0, 1, 0))
        y0, y1, x0, x1 = self._corners
        fraction = (integral[y1, x1] - integral[y0, x1] - integral[y1, x0] + integral[y0, x0]) / self._area
        left = torch.where(fraction > self._settings.min_fraction, fraction, -1.0)
        kept = []
        for _ in range(self._settings.max_regions):
            best = left.argmax()[None]
            kept.append(torch.where(left[best] > 0, best, -1))
            box = self._boxes[best]
            low, high = torch.maximum(box[:, :2], self._boxes[:, :2]), torch.minimum(box[:, 2:], self._boxes[:, 2:])
            shared = (high - low).clamp(min=0).prod(dim=1)
            left = torch.where(shared / torch.minimum(self._covered[best], self._covered) < MAX_OVERLAP, left, -1.0)
        return torch.cat(kept)


def main() -> None:
    torch.set_num_threads(1)
    print("| mask | bytes | candidates | regions | numpy, CPU ms | torch, CPU ms | calls of torch |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    settings = MotionSettings()
    for width, height in SIZES:
        mask = moving(width, height)
        usual = Perspective(CELL * height / 6, 0.2, CELL * height / 2)
        proposer = RegionProposer((height, width), usual, settings)
        there = TensorProposer(proposer, settings)
        with Calls() as calls:
            chosen = there.propose(torch.from_numpy(mask))
        boxes, _ = proposer.propose(mask)
        assert np.array_equal(CELL * proposer._boxes[chosen[chosen >= 0].numpy()], boxes), "both choose the same"
        host, device = least_ms(proposer.propose, mask), least_ms(there.propose, torch.from_numpy(mask))
        said = [f"{width}x{height}", mask.nbytes, len(proposer._area), len(boxes), f"{host:.2f}", f"{device:.2f}", calls.n]
        print(f"| {' | '.join(map(str, said))} |")


def moving(width: int, height: int) -> np.ndarray:
    """A mask of 20 people, each a quarter of the picture tall."""
    generator, mask, tall = np.random.default_rng(0), np.zeros((height, width), dtype=bool), height // 4
    for _ in range(20):
        x, y = generator.integers(0, width - tall // 2), generator.integers(0, height - tall)
        mask[y : y + tall, x : x + tall // 2] = generator.random((tall, tall // 2)) < 0.7
    return mask


def least_ms(run: Callable[[Any], object], mask: Any) -> float:
    times = []
    for _ in range(30):
        start = time.thread_time_ns()
        run(mask)
        times.append((time.thread_time_ns() - start) / 1e6)
    return min(times)


if __name__ == "__main__":
    main()

"""Whether the camera still sees: a frozen, black or covered picture is an event of its own, and scores are flagged.

A covered or fogged lens leaves a picture without edges; a frozen one repeats itself to the last bit, which noise forbids
to a living one. Each state must last, so that a passing truck or a light switch is none.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from edge_vad.types import UInt8

View = Literal["clear", "black", "covered", "frozen"]

AFTER_S = 5.0
BLACK_LEVEL = 16.0  # grey levels: mean of a picture in which nothing can be seen
COVERED_PART = 0.2  # of the usual edge strength
FORGET_S = 600.0  # the usual edge strength follows the scene over minutes: dusk is not a cover
CELL = 4


class ViewMonitor:
    """Follows the picture of one camera."""

    def __init__(self) -> None:
        self.state: View = "clear"
        self._usual_edges = 0.0
        self.reset()

    def reset(self) -> None:
        """Forget the picture before, after a gap; what is usual stays, and the state until another one is seen."""
        self._candidate = self.state
        self._since = self._last_s = -np.inf
        self._before: UInt8 | None = None

    def update(self, luma: UInt8, timestamp: float) -> View | None:
        """Take the luma (h, w) uint8 of the next frame; the new state when it has changed, else None."""
        small = luma[::CELL, ::CELL]
        found = self._look(small, timestamp)
        self._before = small.copy()
        self._last_s = timestamp
        if found != self._candidate:
            self._candidate, self._since = found, timestamp
        wait_s = AFTER_S if found != "clear" else 1.0
        if found == self.state or timestamp - self._since < wait_s:
            return None
        self.state = found
        return found

    def _look(self, small: UInt8, timestamp: float) -> View:
        if float(small.mean()) < BLACK_LEVEL and float(small.std()) < BLACK_LEVEL:
            return "black"  # also where it repeats itself: no light at all leaves no noise
        if self._before is not None and small.shape == self._before.shape and np.array_equal(small, self._before):
            return "frozen"
        edges = _edges(small)
        if edges < COVERED_PART * self._usual_edges:
            return "covered"
        step_s = min(max(timestamp - self._last_s, 0.0), FORGET_S) if np.isfinite(self._last_s) else FORGET_S
        self._usual_edges += (edges - self._usual_edges) * (step_s / FORGET_S if self._usual_edges else 1.0)
        return "clear"


def _edges(small: UInt8) -> float:
    """Mean difference of neighbouring pixels, without what noise adds in a flat picture: the upper tenth counts."""
    signed = small.astype(np.int16)
    across = np.abs(np.diff(signed, axis=1)).ravel()
    down = np.abs(np.diff(signed, axis=0)).ravel()
    strong = np.sort(np.concatenate([across, down]))[-max(1, (across.size + down.size) // 10) :]
    return float(strong.mean())

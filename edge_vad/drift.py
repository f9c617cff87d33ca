"""How far what a camera sees has moved away from the footage that its bundle was built from, without labels."""

from __future__ import annotations

import math
from collections.abc import Mapping

WINDOW_S = 1800.0


class Drift:
    """Mean of each component over the last half hour, in standard deviations of the normal footage; 0 is as it was.

    A few tenths are another time of day; more than about one is another season, camera or purpose: false alarms come, or
    anomalies pass. ``edge-vad learn`` brings the bundle back to the scene.
    """

    def __init__(self, weights: Mapping[str, float], window_s: float = WINDOW_S) -> None:
        """weights: of the components in the score. window_s: infinite for the mean of everything."""
        self._weights = {name: weight for name, weight in weights.items() if weight}
        self._window_s = window_s
        self._means = dict.fromkeys(self._weights, 0.0)
        self._n = 0
        self._last_s = math.nan

    def update(self, timestamp: float, shares: Mapping[str, float]) -> None:
        """One scored frame: what each component added to the sum of its score, in the order of time."""
        self._n += 1
        gap_s = max(timestamp - self._last_s, 0.0) if self._n > 1 else 0.0
        self._last_s = timestamp
        rate = max(1 / self._n, -math.expm1(-gap_s / self._window_s))
        for name, weight in self._weights.items():
            share = shares.get(name, math.nan)
            if math.isfinite(share):
                self._means[name] += rate * (share / weight - self._means[name])

    def values(self) -> dict[str, float]:
        """Component -> drift, to two digits; empty before the first frame."""
        return {name: round(mean, 2) for name, mean in self._means.items()} if self._n else {}

"""Percentiles of times, as a user reads them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)


def percentile(ordered: NDArray[Any], q: float) -> float:
    """The smallest of ``ordered`` (n,) that q percent of them do not exceed (nearest rank): a time that did happen.

    0 < q <= 100; NaN of no values.
    """
    if not len(ordered):
        return float("nan")
    rank = math.ceil(len(ordered) * q / 100 - 1e-9)  # 7 % of 100 are 7, whatever floats make of it
    return float(ordered[max(rank, 1) - 1])


def key(q: float) -> str:
    """``p50``, ``p99.9``."""
    return f"p{q:g}"


def distribution(ns: NDArray[Any], percentiles: Sequence[float]) -> dict[str, float]:
    """Milliseconds of times (n,) in nanoseconds: mean, std, min, every percentile, max."""
    ordered = np.sort(ns) / 1e6
    ends = {"mean": float(ordered.mean()), "std": float(ordered.std()), "min": float(ordered[0])}
    middle = {key(q): percentile(ordered, q) for q in percentiles}
    return {name: round(value, 5) for name, value in {**ends, **middle, "max": float(ordered[-1])}.items()}


def frames_needed(q: float) -> int:
    """Frames from which on a percentile is another one than the slowest frame."""
    return math.ceil(100 / (100 - q) - 1e-9) + 1 if q < 100 else 1

"""Runs with known numbers, and a detector whose stages are known: nothing is measured to test what is made of it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from edge_vad.profiling.measurement import Measurement
from edge_vad.profiling.recording import Spans
from edge_vad.streams import Stopwatch
from edge_vad.types import Frame

MS = 1_000_000


def a_run(wall_ms: list[float], **changed: Any) -> Measurement:
    """Frames one after the other; ``first`` is half of each, ``second`` a quarter of every third; CPU is half of wall."""
    wall = np.array([round(ms * MS) for ms in wall_ms], dtype=np.int64)
    start = 5 * MS + np.concatenate([[0], np.cumsum(wall)[:-1]])
    every = np.arange(len(wall))
    third = every[::3]
    frame, stage = np.concatenate([every, third]), np.repeat([0, 1], [len(every), len(third)])
    took = np.concatenate([wall // 2, wall[third] // 4])
    begun = np.concatenate([start, start[third] + wall[third] // 2])
    order = np.argsort(begun, kind="stable")
    spans = Spans(("first", "second"), *(values[order] for values in (stage, frame, begun, took, took // 2)))
    told: dict[str, Any] = {
        "duration_s": float(wall.sum()) / 1e9,
        "warm_up": 3,
        "n_frames_in_memory": 7,
        "frames_mb": 20.0,
        "period_s": 0.2,
        "paced": False,
        "peak_mb": 120.0,
        "board": {"machine": "x86_64", "n_cpus": 4, "n_usable_cpus": 4, "os": "Linux 6", "model": "A <board>"},
    }
    return Measurement(start, wall, wall // 2, spans, **{**told, **changed})


def felt(**changed: Any) -> dict[str, Any]:
    """What a board said before, meanwhile and after, as arguments of `a_run`."""
    before = {"temperature_c": 50.0, "clock_mhz": 1500.0, "load": 0.5, "power_w": 4.0, "throttled": ["throttled since boot"]}
    during = {**before, "temperature_c": 71.5, "clock_mhz": 2400.0, "power_w": 7.0, "throttled": ["soft temperature limit"]}
    after = {**before, "temperature_c": 64.0, "power_w": 7.0, "memory_mb": 110.0}
    after["throttled"] = ["throttled since boot", "under-voltage since boot"]
    samples = ({"t_s": 0.02, **during},)
    return {"before": before, "samples": samples, "after": after, **changed}


class Busy:
    """Looks like a detector: counts for a while in two stages of every frame that falls due."""

    def __init__(self, n_loops: int = 400, period_s: float = 0.1, every: int = 1) -> None:
        self.period_s = period_s
        self.bank_kinds: dict[str, str] = {}
        self.seen: list[Frame] = []
        self.n_resets = 0
        self._n_loops, self._every = n_loops, every

    def reset(self) -> None:
        self.n_resets += 1

    def process(self, frame: Frame) -> Any:
        self.seen.append(frame)
        if frame.index % self._every:
            return SimpleNamespace(stage_ms={})
        watch = Stopwatch()
        with watch("sums"):
            sum(range(self._n_loops))
        with watch("sleeps"):
            time.sleep(0.001)
        with watch("sums"):
            sum(range(self._n_loops))
        return SimpleNamespace(stage_ms=watch.stage_ms)


class Quiet:
    """A board that tells nothing, and counts how often it is asked."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.n_read = 0

    def read(self) -> dict[str, Any]:
        self.n_read += 1
        return {"load": 0.5}

    def energy_j(self) -> dict[str, float]:
        return {}

    def identity(self) -> dict[str, Any]:
        return {"machine": "test", "n_cpus": 1, "n_usable_cpus": 1, "os": "none"}


def pictures(n: int = 4) -> list[Frame]:
    """Small frames, each of its own grey."""
    return [Frame(np.full((8, 8, 3), i, np.uint8), np.full((8, 8), i, np.uint8), 100.0 + i, 50 + i) for i in range(n)]

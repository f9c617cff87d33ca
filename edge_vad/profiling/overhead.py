"""What measuring costs: the recorder against the frames it records."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vad import spans
from edge_vad.detector import Detector
from edge_vad.profiling.measurement import Measurement
from edge_vad.profiling.recording import Recording
from edge_vad.profiling.stock import Stock
from edge_vad.types import Frame

N_CALLS, N_TRIES = 2000, 5
N_FRAMES, N_PASSES = 30, 40


def span_cost_ns() -> float:
    """CPU nanoseconds that one recorded stage costs, the quickest of five series of calls."""
    costs = []
    for _ in range(N_TRIES):
        recording = Recording(N_CALLS)
        start = time.process_time_ns()
        for _ in range(N_CALLS):
            recording.begin()
            recording.end("stage")
        costs.append((time.process_time_ns() - start) / N_CALLS)
    return min(costs)


def share(measurement: Measurement) -> dict[str, float]:
    """The part of a frame's CPU time that is the recorder's own: records of a frame times the cost of one."""
    per_frame = len(measurement.spans.stage) / measurement.n_frames + 1
    cost = span_cost_ns()
    return {
        "records_per_frame": round(per_frame, 2),
        "ns_per_record": round(cost, 1),
        "share_of_cpu": round(per_frame * cost / max(float(measurement.cpu_ns.mean()), 1.0), 6),
    }


def overhead(detector: Detector, frames: Sequence[Frame], n_passes: int = N_PASSES) -> dict[str, Any]:
    """CPU time of the same frames with and without the recorder, which is attached to every other frame in turn.

    Of every frame the cheapest pass with it and the cheapest without it are compared: what other programs do to a
    processor only ever costs time. Returns plain values: the ratio of the sums, the same over the first and the second half
    of the passes (how sure it is), and milliseconds a frame.
    """
    stock = Stock(frames, detector.period_s)
    _pass(detector, stock, 0)  # warms up
    cpu_ns = np.stack([_pass(detector, stock, number) for number in range(n_passes)])
    detector.reset()
    recorded = np.add.outer(np.arange(n_passes), np.arange(N_FRAMES)) % 2 == 1
    with_it, without = (np.where(those, cpu_ns, np.inf) for those in (recorded, ~recorded))
    half = n_passes // 2
    halves = [slice(None, half), slice(half, None)]
    return {
        "ratio": _ratio(with_it, without),
        "ratio_of_halves": [_ratio(with_it[part], without[part]) for part in halves],
        "cpu_ms_without": round(float(without.min(axis=0).mean()) / 1e6, 4),
        "cpu_ms_with": round(float(with_it.min(axis=0).mean()) / 1e6, 4),
        "n_passes": n_passes,
        "n_frames": N_FRAMES,
    }


def _ratio(with_it: NDArray[np.float64], without: NDArray[np.float64]) -> float:
    return round(float(with_it.min(axis=0).sum() / without.min(axis=0).sum()), 5)


def _pass(detector: Detector, stock: Stock, number: int) -> NDArray[np.int64]:
    """CPU nanoseconds (N_FRAMES,) of frames from a fresh start; recorded: those whose number and the pass's add up odd."""
    recording = Recording(N_FRAMES)
    cpu_ns = np.zeros(N_FRAMES, dtype=np.int64)
    detector.reset()
    for k in range(N_FRAMES):
        frame = stock.frame(k)
        with spans.recording_to(recording) if (k + number) % 2 else nullcontext():
            start = time.process_time_ns()
            if spans.recorder is None:
                detector.process(frame)
            else:
                recording.begin()
                detector.process(frame)
                recording.end_frame()
            cpu_ns[k] = time.process_time_ns() - start
    return cpu_ns

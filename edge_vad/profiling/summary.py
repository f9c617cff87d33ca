"""A measurement as plain values: what every report is made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edge_vad.profiling.measurement import Measurement
from edge_vad.profiling.overhead import share
from edge_vad.profiling.percentiles import distribution, frames_needed, percentile

OTHER = "other"  # of a frame, what no stage measures
N_PARTS = 5
ALWAYS = (50.0, 95.0)  # budgets and comparisons need them
POWERS = {"power_w": "board", "gpu_power_w": "gpu"}  # readings of watts, and whose they are
SINCE_BOOT = " since boot"


def summarise(measurement: Measurement, percentiles: Sequence[float]) -> dict[str, Any]:
    """Plain values, ready for JSON; times in milliseconds. p50 and p95 are always among the percentiles.

    ``end_to_end``: wall_ms and cpu_ms of processed frames (CPU: all threads of the process). ``stages``: the same of each
    stage over the n_frames in which it ran, and ``mean_ms`` over all frames, which add up to the whole. ``fps``: 1000 /
    mean of the wall time, what frames one after the other reach (where a method rests in most frames, p50 is a rest).
    ``memory.used_mb``: the process's peak without the frames that were kept in memory for the run.
    """
    m, percentiles = measurement, sorted({*percentiles, *ALWAYS})
    return {
        "run": {
            "n_frames": m.n_frames,
            "n_passed": m.n_passed,
            "n_late": m.n_late,
            "n_lost": m.n_lost,
            "full": m.full,
            "warm_up": m.warm_up,
            "duration_s": round(m.duration_s, 3),
            "paced": m.paced,
            "period_s": m.period_s,
            "n_frames_in_memory": m.n_frames_in_memory,
            "notes": [*m.notes, *_unresolved(m.n_frames, percentiles)],
        },
        "fps": round(1e9 / float(m.wall_ns.mean()), 3),
        "end_to_end": {
            "wall_ms": distribution(m.wall_ns, percentiles),
            "cpu_ms": distribution(m.cpu_ns, percentiles),
            "parts": {"wall_p50_ms": _parts(m.wall_ns), "cpu_p50_ms": _parts(m.cpu_ns)},
        },
        "stages": _stages(m, percentiles),
        "recorder": share(m),
        "memory": _memory(m),
        "board": {**m.board, "before": m.before, "after": m.after, **_over_time(m)},
        "power": _power(m),
        "samples": list(m.samples),
    }


def _unresolved(n_frames: int, percentiles: Sequence[float]) -> list[str]:
    coarse = [f"p{q:g}" for q in percentiles if q < 100 and n_frames < frames_needed(q)]
    return [f"{n_frames} frames are too few for {', '.join(coarse)}: it is the slowest frame"] if coarse else []


def _parts(ns: Any) -> list[float]:
    """The median of each fifth of the run, in order: how steady it was."""
    return [round(percentile(np.sort(part), 50) / 1e6, 5) for part in np.array_split(ns, N_PARTS) if len(part)]


def _stages(m: Measurement, percentiles: Sequence[float]) -> dict[str, Any]:
    wall, cpu = m.by_stage(m.spans.wall_ns), m.by_stage(m.spans.cpu_ns)
    ran = np.bincount(m.spans.stage * m.n_frames + m.spans.frame, minlength=wall.size).reshape(wall.shape) > 0
    stages = {name: _stage(wall[i], cpu[i], ran[i], percentiles) for i, name in enumerate(m.spans.names) if ran[i].any()}
    rest = np.maximum(m.wall_ns - wall.sum(axis=0), 0), np.maximum(m.cpu_ns - cpu.sum(axis=0), 0)
    return {**stages, OTHER: _stage(*rest, np.ones(m.n_frames, dtype=bool), percentiles)}


def _stage(wall: Any, cpu: Any, ran: Any, percentiles: Sequence[float]) -> dict[str, Any]:
    return {
        "n_frames": int(ran.sum()),
        "mean_ms": {"wall": round(float(wall.mean()) / 1e6, 5), "cpu": round(float(cpu.mean()) / 1e6, 5)},
        "wall_ms": distribution(wall[ran], percentiles),
        "cpu_ms": distribution(cpu[ran], percentiles),
    }


def _memory(m: Measurement) -> dict[str, float]:
    found = {"peak_mb": m.peak_mb, "frames_mb": m.frames_mb, "used_mb": m.peak_mb - m.frames_mb}
    if "memory_mb" in m.after:
        found["resident_mb"] = m.after["memory_mb"]
    return {name: round(value, 1) for name, value in found.items()}


def _readings(m: Measurement, key: str) -> list[float]:
    return [told[key] for told in (m.before, *m.samples, m.after) if key in told]


def _over_time(m: Measurement) -> dict[str, Any]:
    """The hottest reading, the range of the clock, and what slowed the board down in the run; nothing where not told."""
    found: dict[str, Any] = {}
    for key in ("temperature_c", "gpu_temperature_c"):
        if readings := _readings(m, key):
            found[f"{key}_max"] = max(readings)
    for key in ("clock_mhz", "gpu_clock_mhz"):
        if readings := _readings(m, key):
            found[f"{key}_range"] = [min(readings), max(readings)]
    told = [told[key] for told in (m.before, *m.samples, m.after) for key in ("throttled", "gpu_throttled") if key in told]
    if told:
        during = {flag for flags in told for flag in flags if not flag.endswith(SINCE_BOOT)}
        during |= set(m.after.get("throttled", [])) - set(m.before.get("throttled", []))
        found["throttled_in_run"] = sorted({flag.removesuffix(SINCE_BOOT) for flag in during})
    return found


def _power(m: Measurement) -> dict[str, Any]:
    """Mean watts and joules a frame, by whose they are; the whole board's or package's, whatever else ran there."""
    watts = {name: joules / m.duration_s for name, joules in m.energy_j.items()}
    for key, name in POWERS.items():
        if name not in watts and (readings := _readings(m, key)):
            watts[name] = sum(readings) / len(readings)
    return {
        name: {"mean_w": round(value, 3), "joule_per_frame": round(value * m.duration_s / m.n_frames, 5)}
        for name, value in watts.items()
    }

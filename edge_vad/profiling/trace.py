"""A run in Chrome's trace event format, which https://ui.perfetto.dev and chrome://tracing open."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from edge_vad.profiling.measurement import Measurement

FRAMES, BOARD = 1, 2  # thread numbers
COUNTERS = {  # reading: name of its track
    "temperature_c": "temperature (C)",
    "clock_mhz": "clock (MHz)",
    "power_w": "power (W)",
    "load": "load",
    "memory_mb": "resident memory (MB)",
    "gpu_percent": "GPU load (%)",
    "gpu_temperature_c": "GPU temperature (C)",
    "gpu_clock_mhz": "GPU clock (MHz)",
    "gpu_power_w": "GPU power (W)",
}


def to_trace(measurement: Measurement, header: Mapping[str, Any]) -> str:
    """JSON text: frames and, inside them, their stages as complete events, microseconds; readings as counters.

    header: plain values that are kept beside the events, ``bundle`` among them. Source: "Trace Event Format", sections on
    complete, counter and metadata events.
    """
    events = [*_names(header), *sorted(_spans(measurement), key=lambda event: (event["ts"], -event["dur"]))]
    events += _counters(measurement)
    lines = ",\n".join(json.dumps(event, separators=(",", ":"), allow_nan=False) for event in events)
    other = json.dumps(header, allow_nan=False, default=str)
    return f'{{"displayTimeUnit":"ms","otherData":{other},"traceEvents":[\n{lines}\n]}}\n'


def _names(header: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for what, tid, name in (
        ("process_name", FRAMES, f"edge-vad bench {header['bundle']['name']}"),
        ("thread_name", FRAMES, "frames and stages"),
        ("thread_name", BOARD, "board"),
    ):
        yield {"ph": "M", "name": what, "pid": 1, "tid": tid, "args": {"name": name}}


def _spans(m: Measurement) -> Iterator[dict[str, Any]]:
    zero = int(m.start_ns[0])
    for i in range(m.n_frames):
        yield _complete("frame", int(m.start_ns[i]) - zero, m.wall_ns[i], m.cpu_ns[i], i)
    s = m.spans
    for i in range(len(s.stage)):
        name = s.names[s.stage[i]]
        yield _complete(name, int(s.start_ns[i]) - zero, s.wall_ns[i], s.cpu_ns[i], int(s.frame[i]))


def _complete(name: str, start_ns: int, wall_ns: Any, cpu_ns: Any, frame: int) -> dict[str, Any]:
    event = {"ph": "X", "name": name, "cat": "edge-vad", "pid": 1, "tid": FRAMES}
    args = {"frame": frame, "cpu_ms": round(int(cpu_ns) / 1e6, 4)}
    return {**event, "ts": start_ns / 1e3, "dur": int(wall_ns) / 1e3, "args": args}


def _counters(m: Measurement) -> Iterator[dict[str, Any]]:
    told = [{"t_s": 0.0, **m.before}, *m.samples, {"t_s": m.duration_s, **m.after}]
    for readings in told:
        for key, name in COUNTERS.items():
            if key in readings:
                event = {"ph": "C", "name": name, "pid": 1, "tid": BOARD, "ts": 1e6 * readings["t_s"]}
                yield {**event, "args": {"value": readings[key]}}

"""Milliseconds by stage, without waiting for the device."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from edge_vad import spans
from edge_vad.streams import Stopwatch


class Watch(Stopwatch):
    """Of one frame: CPU time of the thread on a CPU; on a GPU the time between two events in its stream."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.stream = stream_of(device)
        self._events: list[tuple[str, Any, Any, float]] = []

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        with timed(stage, [(self, 1)]):
            yield

    @contextmanager
    def host(self, stage: str) -> Iterator[None]:
        """A stage on the host: CPU time of the thread, on every device."""
        with super().__call__(stage):
            yield

    def add(self, stage: str, ms: float) -> None:
        """Count milliseconds for a stage."""
        self.stage_ms[stage] = self.stage_ms.get(stage, 0.0) + ms

    def between(self, stage: str, start: Any, end: Any, share: float) -> None:
        """Count a share of the time between two events, which the device has yet to reach."""
        self._events.append((stage, start, end, share))

    def read(self) -> dict[str, float]:
        """Milliseconds by stage. To be called when the device has reached all events: after a download."""
        for stage, start, end, share in self._events:
            self.add(stage, share * start.elapsed_time(end))
        self._events.clear()
        return self.stage_ms


def stream_of(device: torch.device) -> Any:
    """What a GPU does one after the other; None on a CPU."""
    return torch.cuda.current_stream(device) if device.type == "cuda" else None


@contextmanager
def timed(stage: str, shares: Sequence[tuple[Watch, int]]) -> Iterator[None]:
    """Time a stage of several frames at once and share it by their weights, such as numbers of pictures."""
    recorder = spans.recorder
    if recorder is not None:
        recorder.begin()
    stream, total = shares[0][0].stream, max(sum(weight for _, weight in shares), 1)
    start, began = _event(stream), time.thread_time_ns()
    try:
        yield
    finally:
        end, ms = _event(stream), (time.thread_time_ns() - began) / 1e6
        for watch, weight in shares:
            if stream is None:
                watch.add(stage, ms * weight / total)
            else:
                watch.between(stage, start, end, weight / total)
        if recorder is not None:
            recorder.end(stage)


def _event(stream: Any) -> Any:
    """An event that the stream reaches after everything that was queued so far."""
    if stream is None:
        return None
    event = torch.cuda.Event(enable_timing=True)
    event.record(stream)
    return event

"""Where the stages of a frame can be recorded on the way: nowhere, in normal runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Recorder(Protocol):
    """What `edge-vad bench` attaches."""

    def begin(self) -> None:
        """A stage begins now."""

    def end(self, stage: str) -> None:
        """The stage that began last is over; its name."""


# One for the process: only the profiler sets it, around frames that it processes one after the other in one thread.
recorder: Recorder | None = None


@contextmanager
def recording_to(one: Recorder) -> Iterator[None]:
    """Record the stages of what is processed inside; RuntimeError where something is recording already."""
    global recorder
    if recorder is not None:
        raise RuntimeError("stages are being recorded already")
    recorder = one
    try:
        yield
    finally:
        recorder = None

"""Where the clocks of a run are written: arrays that are allocated before it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Nanoseconds = NDArray[np.int64]

SPANS_PER_FRAME = 32  # room for that many stages in each frame, on average


@dataclass(frozen=True, slots=True)
class Spans:
    """Every stage of every frame, in order: stage (m,) as index into the names, frame (m,), and three times (m,).

    start_ns: of ``time.monotonic_ns``. wall_ns: how long it took. cpu_ns: CPU time of the whole process meanwhile.
    """

    names: tuple[str, ...]
    stage: NDArray[np.int64]
    frame: NDArray[np.int64]
    start_ns: Nanoseconds
    wall_ns: Nanoseconds
    cpu_ns: Nanoseconds


class Recording:
    """Start, wall time and CPU time of frames and of the stages in them; a `edge_vad.spans.Recorder`.

    The arrays are zeros that the system gives memory to when they are first written, so room that is not used costs
    nothing. Both clocks are read by both ends: ``time.monotonic_ns`` and ``time.process_time_ns`` (all threads).
    """

    def __init__(self, n_frames: int) -> None:
        """n_frames: how many frames there is room for."""
        self.capacity = n_frames
        self.n_frames = self.n_spans = self.n_lost = 0
        self._stages: dict[str, int] = {}
        self._open: list[tuple[int, int]] = []
        self._frames = np.zeros((3, n_frames), dtype=np.int64)
        self._spans = np.zeros((5, n_frames * SPANS_PER_FRAME), dtype=np.int64)
        self._room = self._spans.shape[1]
        # Plain memory: an element of a NumPy array is five times slower to set.
        self._start, self._wall, self._cpu = (row.data for row in self._frames)
        self._stage, self._frame, self._begun, self._took, self._used = (row.data for row in self._spans)

    def begin(self) -> None:
        """A stage begins now."""
        cpu = time.process_time_ns()
        self._open.append((time.monotonic_ns(), cpu))

    def end(self, stage: str) -> None:
        """The stage that began last is over."""
        now, cpu = time.monotonic_ns(), time.process_time_ns()
        begun, before = self._open.pop()
        i = self.n_spans
        if i == self._room:
            self.n_lost += 1
            return
        self._stage[i] = self._stages.setdefault(stage, len(self._stages))
        self._frame[i] = self.n_frames
        self._begun[i], self._took[i], self._used[i] = begun, now - begun, cpu - before
        self.n_spans = i + 1

    def end_frame(self) -> None:
        """The frame whose `begin` was called first is over."""
        now, cpu = time.monotonic_ns(), time.process_time_ns()
        begun, before = self._open.pop()
        i = self.n_frames
        self._start[i], self._wall[i], self._cpu[i] = begun, now - begun, cpu - before
        self.n_frames = i + 1

    def drop_frame(self) -> None:
        """The frame was not processed: it does not count."""
        self._open.pop()

    @property
    def full(self) -> bool:
        """Whether there is no room for another frame."""
        return self.n_frames == self.capacity

    def frames(self) -> tuple[Nanoseconds, Nanoseconds, Nanoseconds]:
        """Start, wall time and CPU time of each frame, (n,) each."""
        start, wall, cpu = self._frames[:, : self.n_frames].copy()
        return start, wall, cpu

    def spans(self) -> Spans:
        """Every stage of these frames."""
        return Spans(tuple(self._stages), *self._spans[:, : self.n_spans].copy())

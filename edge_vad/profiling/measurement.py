"""Runs a detector over frames and reads the clocks."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vad import spans
from edge_vad.detector import Detector
from edge_vad.profiling.board import Board, peak_mb
from edge_vad.profiling.percentiles import PERCENTILES
from edge_vad.profiling.recording import Nanoseconds, Recording, Spans
from edge_vad.profiling.stock import Stock
from edge_vad.progress import show
from edge_vad.types import Frame

WARM_UP = 30
SAMPLE_S = 1.0
FASTER = 4  # a frame may be that much faster than the fastest of the warm-up; the recording has room for it
SPARE_FRAMES = 100


@dataclass(frozen=True, slots=True)
class Measurement:
    """A run. Arrays are of the n processed frames in order.

    start_ns (n,): ``time.monotonic_ns`` when a frame began. wall_ns, cpu_ns (n,): what it took end to end; CPU time is
    that of the whole process, all threads together. spans: every stage of every frame.
    n_passed: frames that the detector passed over, which do not count. n_late: of a paced run, frames that could not begin
    in time. n_lost: stages that there was no room for. full: the run ended early for want of room.
    period_s: between the frames' time stamps. frames_mb: what the frames in memory take.
    before, after: what the board said; samples: what it said about once a second, each with ``t_s`` since the start.
    energy_j: by what counted it, over ``duration_s``. peak_mb: the most memory that the process ever had, which later
    runs in the same process inherit.
    """

    start_ns: Nanoseconds
    wall_ns: Nanoseconds
    cpu_ns: Nanoseconds
    spans: Spans
    duration_s: float
    warm_up: int
    n_frames_in_memory: int
    frames_mb: float
    period_s: float
    paced: bool
    peak_mb: float
    n_passed: int = 0
    n_late: int = 0
    n_lost: int = 0
    full: bool = False
    board: dict[str, Any] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    samples: tuple[dict[str, Any], ...] = ()
    energy_j: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def n_frames(self) -> int:
        """Processed frames that were measured."""
        return len(self.wall_ns)

    def by_stage(self, ns: Nanoseconds) -> NDArray[np.float64]:
        """``spans.wall_ns`` or ``spans.cpu_ns`` (m,) summed up by stage and frame: (stages, n)."""
        names, n = self.spans.names, self.n_frames
        sums = np.bincount(self.spans.stage * n + self.spans.frame, weights=ns, minlength=len(names) * n)
        return np.asarray(sums, dtype=np.float64).reshape(len(names), n)

    def summary(self, percentiles: Sequence[float] = PERCENTILES) -> dict[str, Any]:
        """Plain values: see `edge_vad.profiling.summary.summarise`."""
        from edge_vad.profiling.summary import summarise

        return summarise(self, percentiles)


def measure(
    detector: Detector,
    frames: Sequence[Frame],
    *,
    duration_s: float = 30.0,
    n_frames: int | None = None,
    warm_up: int = WARM_UP,
    paced: bool = False,
    board: Board | None = None,
) -> Measurement:
    """What ``detector`` needs for each of ``frames``, which are played forwards and backwards with rising time stamps.

    warm_up: processed frames before the clocks count. duration_s: of the run after that; n_frames: end after as many
    processed frames instead. paced: one frame each ``detector.period_s``, as the camera would give them, instead of one
    after the other. board: what is asked about once a second, between two frames; the files of this system by default.
    The detector is reset before and after. Nothing else may use a detector in this process meanwhile.
    Raises what `Detector.process` raises, ValueError without frames or where no frame is processed.
    """
    own = Board() if board is None else board
    try:
        run = _Run(detector, Stock(frames, detector.period_s), own, paced)
        with _few_sweeps():
            fastest_ns = run.warm_up(warm_up)
            room = n_frames or int(1e9 * duration_s * FASTER / fastest_ns) + SPARE_FRAMES
            recording = Recording(room)
            with spans.recording_to(recording):
                run.run(recording, None if n_frames else duration_s)
        start_ns, wall_ns, cpu_ns = recording.frames()
        return Measurement(
            start_ns,
            wall_ns,
            cpu_ns,
            recording.spans(),
            duration_s=run.duration_s,
            warm_up=warm_up,
            n_frames_in_memory=len(frames),
            frames_mb=run.stock.mb,
            period_s=detector.period_s,
            paced=paced,
            peak_mb=peak_mb(),
            n_passed=run.n_passed,
            n_late=run.n_late,
            n_lost=recording.n_lost,
            full=n_frames is None and recording.full,
            board=own.identity(),
            before=run.before,
            after=run.after,
            samples=tuple(run.samples),
            energy_j=run.energy_j,
            notes=tuple(own.notes),
        )
    finally:
        detector.reset()
        if board is None:
            own.close()


class _Run:
    """The loop over frames: nothing in it but the frame, the clocks, and once a second the board."""

    def __init__(self, detector: Detector, stock: Stock, board: Board, paced: bool) -> None:
        self.stock = stock
        self.n_passed = self.n_late = 0
        self.duration_s = 0.0
        self.before: dict[str, Any] = {}
        self.after: dict[str, Any] = {}
        self.samples: list[dict[str, Any]] = []
        self.energy_j: dict[str, float] = {}
        self._detector, self._board, self._paced = detector, board, paced
        self._k = 0

    def warm_up(self, n_frames: int) -> int:
        """Process ``n_frames`` (and at least one) uncounted; returns the nanoseconds of the fastest."""
        self._detector.reset()
        fastest, n_done = sys.maxsize, 0
        while n_done < max(n_frames, 1):
            begun = time.monotonic_ns()
            if self._detector.process(self._next()).stage_ms:
                n_done += 1
                fastest = min(fastest, time.monotonic_ns() - begun)
            elif self._k > 100 * (n_done + 1):
                raise ValueError("the detector processes none of the frames")
        self.n_passed = 0
        return max(fastest, 1000)

    def run(self, recording: Recording, duration_s: float | None) -> None:
        """Record frames until the time is over (None: as long as there is room)."""
        self.before, energy = self._board.read(), self._board.energy_j()
        process = self._detector.process
        start = sampled = time.monotonic()
        wait = self._pace(start) if self._paced else None
        now = start
        while not recording.full and (duration_s is None or now - start < duration_s or not recording.n_frames):
            frame = self._next()
            if wait:
                wait()
            recording.begin()
            if process(frame).stage_ms:
                recording.end_frame()
            else:
                recording.drop_frame()
                self.n_passed += 1
            now = time.monotonic()
            if now - sampled >= SAMPLE_S:
                sampled = now
                self._sample(now - start, duration_s, recording.n_frames)
        self.duration_s = now - start
        spent = self._board.energy_j()
        self.energy_j = {name: round(joules - energy[name], 4) for name, joules in spent.items() if name in energy}
        self.after = self._board.read()
        show("")

    def _next(self) -> Frame:
        frame = self.stock.frame(self._k)
        self._k += 1
        return frame

    def _pace(self, start: float) -> Callable[[], None]:
        """Waits until the next frame is due; one that is a whole period behind is late, and the clock begins anew."""
        period, due = self._detector.period_s, start

        def wait() -> None:
            nonlocal due
            now = time.monotonic()
            if now < due:
                time.sleep(due - now)
            elif now - due > period:
                self.n_late += 1
                due = now
            due += period

        return wait

    def _sample(self, t_s: float, duration_s: float | None, n_frames: int) -> None:
        """What the board says now; between two frames, so that it is in no number but the whole duration."""
        self.samples.append({"t_s": round(t_s, 3), **self._board.read()})
        self._board.energy_j()  # its counters may wrap around
        show(f"bench: {n_frames} frames, {t_s:.0f} s" + (f" of {duration_s:.0f}" if duration_s else ""))


@contextmanager
def _few_sweeps() -> Iterator[None]:
    """Garbage collection as a unit at work has it: what was there before is not looked at again."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()

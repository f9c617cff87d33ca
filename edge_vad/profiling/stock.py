"""Frames in memory that are played again and again, so that neither decoding nor a disk is in the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np

from edge_vad.bundle import Bundle
from edge_vad.cameras import open_camera
from edge_vad.errors import SourceError
from edge_vad.types import Frame

MAX_FRAMES = 100
MAX_BYTES = 64 * 2**20
LOWEST_FPS, HIGHEST_FPS = 0.1, 240.0  # of the generated street
USUAL_SIZE = (360, 240)  # where a bundle takes any


class Stock:
    """Plays frames forwards and backwards without an end: nothing jumps, the load of every round is the same."""

    def __init__(self, frames: Sequence[Frame], period_s: float) -> None:
        """period_s: between two frames that are played. ValueError without frames."""
        if not frames:
            raise ValueError("no frames to measure with")
        self._frames = frames
        self._period_s = period_s
        self._round = max(2 * len(frames) - 2, 1)

    def frame(self, k: int) -> Frame:
        """The k-th frame that is played, k from 0, as one of a stream that never ends."""
        place = k % self._round
        stored = self._frames[min(place, self._round - place)]
        return Frame(stored.image, stored.luma, k * self._period_s, k)

    @property
    def mb(self) -> float:
        """MiB that the frames take."""
        return sum(frame.image.nbytes + frame.luma.nbytes for frame in self._frames) / 2**20


def street_source(size: tuple[int, int], period_s: float) -> str:
    """The generated street of normal traffic with frames of ``size`` (width, height), ``period_s`` seconds apart."""
    fps = min(max(1 / period_s, LOWEST_FPS), HIGHEST_FPS)
    seconds = MAX_FRAMES / fps
    return f"synthetic:seed=1,seconds={seconds:.3f},anomalies=none,size={size[0]}x{size[1]},fps={fps:.6g}"


def read_frames(source: str, period_s: float, fps: float | None = None, size: tuple[int, int] | None = None) -> list[Frame]:
    """The frames of a source that a detector would process, one in each ``period_s`` seconds; at most 100, or 64 MiB.

    Raises SourceError where the source cannot be opened or has no frame.
    """
    frames: list[Frame] = []
    with open_camera(source, fps, size) as camera:
        step = max(1, round(period_s * camera.fps))
        room = MAX_FRAMES
        for frame in islice(camera.frames(), 0, None, step):
            room = room if frames else min(MAX_FRAMES, 1 + MAX_BYTES // (frame.image.nbytes + frame.luma.nbytes))
            # A camera may use its buffers again.
            frames.append(Frame(np.array(frame.image), np.array(frame.luma), frame.timestamp, frame.index))
            if len(frames) >= room:
                break
    if not frames:
        raise SourceError(f"{source}: no frame to measure with; name a longer clip")
    return frames


def frames_for(bundle: Bundle, source: str | None = None, fps: float | None = None) -> tuple[list[Frame], str]:
    """The frames of a source, or of a generated street of the bundle, and where they come from. Raises SourceError."""
    size, period_s = asked_for(bundle)
    if source:
        return read_frames(source, period_s, fps, size), source
    source = street_source(size or USUAL_SIZE, period_s)
    try:
        return read_frames(source, period_s), source
    except SourceError as error:
        raise SourceError(f"no street can be generated for this bundle ({error}); name frames with --source") from error


def asked_for(bundle: Bundle) -> tuple[tuple[int, int] | None, float]:
    """Picture size and period that the bundle is for; what is wrong with them is said when the detector is opened."""
    period_s = bundle.calibration.get("period_s")
    return bundle.image_size, float(period_s) if isinstance(period_s, (int, float)) and period_s > 0 else 1.0

"""Work on frames with pauses, so that the pictures of several cameras go through one encoder at once."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np

from edge_vad import spans
from edge_vad.types import Float32, UInt8

if TYPE_CHECKING:
    from edge_vad.features import Encoder

T = TypeVar("T")


@dataclass(slots=True)
class Encoding:
    """Pictures (n, h, w, 3) uint8 that wait for an encoder. stage_ms: where the CPU milliseconds of ``stage`` are added."""

    encoder: Encoder
    pictures: UInt8
    stage_ms: dict[str, float]
    stage: str

    def encode(self, pictures: UInt8, share: float = 1.0) -> list[Float32]:
        """The encoder's taps for pictures, of which this work has a share."""
        recorder = spans.recorder
        if recorder is not None:
            recorder.begin()
        start = time.thread_time_ns()
        taps = self.encoder(pictures)
        self.add(share * (time.thread_time_ns() - start) / 1e6)
        if recorder is not None:
            recorder.end(self.stage)
        return taps

    def add(self, ms: float) -> None:
        """Count CPU time for this work."""
        self.stage_ms[self.stage] = self.stage_ms.get(self.stage, 0.0) + ms


# Yields pictures, is sent the encoder's taps for them, returns its result.
Steps = Generator[Encoding, list[Float32], T]


def run_alone(steps: Steps[T]) -> T:
    """The result of one work: its pictures are encoded as soon as they are there."""
    try:
        request = next(steps)
        while True:
            request = steps.send(request.encode(request.pictures))
    except StopIteration as end:
        return cast(T, end.value)


def run_together(works: Sequence[Steps[T]]) -> list[T | Exception]:
    """The results of several works, in their order; pictures of one size for one session are encoded as one batch.

    What fails in one work is its result and leaves the others alone; a backend that fails costs all whose pictures it had.
    """
    results: dict[int, T | Exception] = {}
    waiting: dict[int, Encoding] = {}

    def advance(i: int, taps: list[Float32] | None) -> None:
        try:
            waiting[i] = next(works[i]) if taps is None else works[i].send(taps)
        except StopIteration as end:
            results[i] = cast(T, end.value)
        except Exception as error:
            results[i] = error

    for i in range(len(works)):
        advance(i, None)
    while waiting:
        first = next(iter(waiting.values()))
        group = {i: request for i, request in waiting.items() if _together(first, request)}
        for i in group:
            del waiting[i]
        try:
            for i, taps in zip(group, _encode(list(group.values())), strict=True):
                advance(i, taps)
        except Exception as error:
            results.update(dict.fromkeys(group, error))
    return [results[i] for i in range(len(works))]


def _together(a: Encoding, b: Encoding) -> bool:
    return a.encoder.same_session(b.encoder) and a.pictures.shape[1:] == b.pictures.shape[1:]


def _encode(group: list[Encoding]) -> list[list[Float32]]:
    """The taps of each request of a group, encoded as one batch; CPU time is shared by the number of pictures."""
    if len(group) == 1:
        return [group[0].encode(group[0].pictures)]
    start = time.thread_time_ns()
    taps = group[0].encoder(np.concatenate([request.pictures for request in group]))
    ms = (time.thread_time_ns() - start) / 1e6
    counts = [len(request.pictures) for request in group]
    for request, count in zip(group, counts, strict=True):
        request.add(ms * count / sum(counts))
    ends = np.cumsum(counts)[:-1]
    split = [np.split(tap, ends) for tap in taps]
    return [[parts[i] for parts in split] for i in range(len(group))]

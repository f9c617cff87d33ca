"""Work on frames with pauses, so that the pictures of several cameras go through one encoder at once."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, cast

import numpy as np

from edge_vad import spans
from edge_vad.types import Float32, UInt8

if TYPE_CHECKING:
    from edge_vad.features import Encoder

T = TypeVar("T")


class Request(Protocol):
    """What a work waits for; requests of several works that join are served at once, those of the lowest order first.

    order: higher for what waits for a device, so that other works have queued theirs by then.
    """

    @property
    def order(self) -> int: ...

    def joins(self, other: Any) -> bool:
        """Whether both may be served together."""

    def serve(self, group: Sequence[Any]) -> Sequence[Any]:
        """The answers to a group of requests that join, this one the first of them."""


@dataclass(slots=True)
class Encoding:
    """Pictures (n, h, w, 3) uint8 that wait for an encoder. stage_ms: where the CPU milliseconds of ``stage`` are added."""

    encoder: Encoder
    pictures: UInt8
    stage_ms: dict[str, float]
    stage: str
    order: ClassVar[int] = 0

    def joins(self, other: object) -> bool:
        """One session and one size of pictures."""
        return (
            isinstance(other, Encoding)
            and self.encoder.same_session(other.encoder)
            and self.pictures.shape[1:] == other.pictures.shape[1:]
        )

    def serve(self, group: Sequence[Encoding]) -> list[list[Float32]]:
        """The taps of each, encoded as one batch; CPU time is shared by the number of pictures."""
        if len(group) == 1:
            return [self.encode(self.pictures)]
        start = time.thread_time_ns()
        taps = self.encoder(np.concatenate([request.pictures for request in group]))
        ms = (time.thread_time_ns() - start) / 1e6
        counts = [len(request.pictures) for request in group]
        for request, count in zip(group, counts, strict=True):
            request.add(ms * count / sum(counts))
        ends = np.cumsum(counts)[:-1]
        split = [np.split(tap, ends) for tap in taps]
        return [[parts[i] for parts in split] for i in range(len(group))]

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


# Yields what it waits for (an `Encoding`: pictures), is sent the answer (the encoder's taps for them), returns its result.
Steps = Generator[Request, Any, T]


def run_alone(steps: Steps[T]) -> T:
    """The result of one work: what it waits for is served at once."""
    try:
        request = next(steps)
        while True:
            request = steps.send(request.serve([request])[0])
    except StopIteration as end:
        return cast(T, end.value)


def run_together(works: Sequence[Steps[T]]) -> list[T | Exception]:
    """The results of several works, in their order; pictures of one size for one session are encoded as one batch.

    What fails in one work is its result and leaves the others alone; a backend that fails costs all whose pictures it had.
    """
    results: dict[int, T | Exception] = {}
    waiting: dict[int, Request] = {}

    def advance(i: int, answer: Any) -> None:
        try:
            waiting[i] = next(works[i]) if answer is None else works[i].send(answer)
        except StopIteration as end:
            results[i] = cast(T, end.value)
        except Exception as error:
            results[i] = error

    for i in range(len(works)):
        advance(i, None)
    while waiting:
        first = min(waiting.values(), key=lambda request: request.order)
        group = {i: request for i, request in waiting.items() if first.joins(request)}
        for i in group:
            del waiting[i]
        try:
            for i, answer in zip(group, first.serve(list(group.values())), strict=True):
                advance(i, answer)
        except Exception as error:
            results.update(dict.fromkeys(group, error))
    return [results[i] for i in range(len(works))]

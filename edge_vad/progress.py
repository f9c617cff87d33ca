"""A progress line for people: on standard error, only when it is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
REFRESH_S = 0.2
BAR = 20  # characters


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Pass ``items`` on and show how many there were, of how many, and the time that is left."""
    with Meter(label, total) as meter:
        for count, item in enumerate(items, 1):
            yield item
            meter.show(count)


class Meter:
    """How far a long job is, of how much, and the time that is left; a context manager that ends the line.

    total: None or 0 where it is unknown. done: what was finished in an earlier run, which says nothing of the speed.
    """

    def __init__(self, label: str, total: int | None = None, done: int = 0) -> None:
        self._label = label
        self._total = total
        self._done = done
        self._count = done
        self._start = self._shown = time.monotonic()
        self._watched = sys.stderr.isatty()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._watched:
            show(self.line(time.monotonic() - self._start))
            sys.stderr.write("\n")

    def show(self, count: int) -> None:
        """So much is done, that of an earlier run included."""
        self._count = count
        now = time.monotonic()
        if self._watched and now - self._shown >= REFRESH_S:
            self._shown = now
            show(self.line(now - self._start))

    def line(self, elapsed_s: float) -> str:
        """What a person reads after ``elapsed_s`` seconds."""
        if not self._total:
            return f"{self._label}: {self._count} in {duration(elapsed_s)}"
        part = min(self._count / self._total, 1.0)
        bar = "#" * int(BAR * part)
        fresh = self._count - self._done
        left = duration(elapsed_s / fresh * (self._total - self._count)) if fresh > 0 else "?"
        return f"{self._label}: [{bar:.<{BAR}}] {self._count} of {self._total} ({int(100 * part)} %), {left} left"


def show(text: str) -> None:
    """Replace the line that a person watches; nothing when nobody does."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def duration(seconds: float) -> str:
    """What a person reads of so many seconds."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"

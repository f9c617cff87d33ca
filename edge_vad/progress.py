"""A progress line for people: on standard error, only when it is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
REFRESH_S = 0.2


def progress(items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
    """Pass ``items`` on and show how many there were, of how many, and the time that is left."""
    if not sys.stderr.isatty():
        yield from items
        return
    start = shown = time.monotonic()
    count = 0
    try:
        for count, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if now - shown >= REFRESH_S:
                shown = now
                show(_line(label, count, total, now - start))
    finally:
        show(_line(label, count, total, time.monotonic() - start))
        sys.stderr.write("\n")


def show(text: str) -> None:
    """Replace the line that a person watches; nothing when nobody does."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()


def _line(label: str, count: int, total: int | None, elapsed_s: float) -> str:
    if not total:
        return f"{label}: {count} in {elapsed_s:.0f} s"
    left = elapsed_s / max(count, 1) * (total - count)
    return f"{label}: {count} of {total} ({100 * count // total} %), {left:.0f} s left"

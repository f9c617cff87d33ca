"""Records as JSON lines, on standard output or appended to a file."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from edge_vad.errors import OutputError
from edge_vad.record import Record
from edge_vad.sinks.base import Sink


class JsonLines(Sink):
    """One record, one line. The location is a path; an empty one or ``-`` is standard output.

    A line that was cut off by a full disk or a power cut stays a line of its own: the next record begins a new one.
    """

    def __init__(self, location: str) -> None:
        self._name = location or "-"
        self._torn = False
        self._own = self._name != "-"
        try:
            self._handle = os.open(location, _FLAGS, 0o644) if self._own else _standard_output()
        except OSError as error:
            raise OutputError(f"{location}: events cannot be written there: {error.strerror}") from error
        if self._own:
            self._torn = _ends_within_a_line(self._handle, location)

    def write(self, record: Record) -> None:
        line = record.line() + "\n"
        try:
            if self._handle >= 0:
                self._append(line.encode())
            else:
                sys.stdout.write(line)
                sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"{self._name}: an event could not be written: {error.strerror}") from error

    def close(self) -> None:
        if self._own and self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def _append(self, line: bytes) -> None:
        left = memoryview(b"\n" + line if self._torn else line)
        while left:
            left = left[os.write(self._handle, left) :]
            self._torn = bool(left)


_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC


def _standard_output() -> int:
    """Its handle: Python's own buffer would keep what a full disk refused, and send it twice. -1 where it has none."""
    try:
        sys.stdout.flush()
        return sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        return -1


def _ends_within_a_line(handle: int, path: str) -> bool:
    status = os.fstat(handle)
    if not stat.S_ISREG(status.st_mode) or not status.st_size:
        return False
    try:
        with Path(path).open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # it may be written and not read
        return False

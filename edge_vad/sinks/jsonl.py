"""Records as JSON lines, on standard output or appended to a file."""

from __future__ import annotations

import os
import sys

from edge_vad.errors import OutputError
from edge_vad.record import Record
from edge_vad.sinks.base import Sink


class JsonLines(Sink):
    """One record, one line. The location is a path; an empty one or ``-`` is standard output."""

    def __init__(self, location: str) -> None:
        self._name = location or "-"
        self._handle = -1
        if self._name == "-":
            return
        try:
            self._handle = os.open(location, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise OutputError(f"{location}: events cannot be written there: {error.strerror}") from error

    def write(self, record: Record) -> None:
        line = record.line() + "\n"
        try:
            if self._handle >= 0:
                os.write(self._handle, line.encode())
            else:
                sys.stdout.write(line)
                sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"{self._name}: an event could not be written: {error.strerror}") from error

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

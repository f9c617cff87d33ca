"""Events as JSON lines, on standard output or appended to a file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from typing import Any, TextIO

from edge_vad.errors import OutputError
from edge_vad.sinks.base import Sink
from edge_vad.types import Event


class JsonLines(Sink):
    """One event, one line. The location is a path; an empty one or ``-`` is standard output."""

    def __init__(self, location: str) -> None:
        self._name = location or "-"
        self._file: TextIO
        if self._name == "-":
            self._file = sys.stdout
            return
        try:
            self._file = open(location, "a", encoding="utf-8")  # noqa: SIM115, PTH123 - closed by close()
        except OSError as error:
            raise OutputError(f"{location}: events cannot be written there: {error.strerror}") from error

    def write(self, event: Event) -> None:
        try:
            self._file.write(json.dumps(as_json(event), sort_keys=True) + "\n")
            self._file.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"{self._name}: an event could not be written: {error.strerror}") from error

    def close(self) -> None:
        if self._name != "-":
            with contextlib.suppress(OSError):
                self._file.close()


def as_json(event: Event) -> dict[str, Any]:
    """The event as plain JSON values; scores rounded to four digits, boxes to a tenth of a pixel."""
    plain = dataclasses.asdict(event)
    plain["regions"] = [
        {"box": [round(v, 1) for v in (r.x0, r.y0, r.x1, r.y1)], "score": round(r.score, 4)} for r in event.regions
    ]
    plain["components"] = {name: round(value, 4) for name, value in event.components.items()}
    for key in ("peak_score", "start_s", "end_s"):
        plain[key] = None if plain[key] is None else round(plain[key], 4)
    return plain

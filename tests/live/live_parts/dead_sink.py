"""A remote sink whose receiver never answers."""

from __future__ import annotations

import threading
from typing import ClassVar

from edge_vad.errors import OutputError
from edge_vad.record import Record
from edge_vad.sinks.base import Sink


class DeadSink(Sink):
    """``live_parts.dead_sink:hang`` takes as long as `released` is not set; any other location refuses at once."""

    remote = True
    released: ClassVar[threading.Event] = threading.Event()

    def __init__(self, location: str) -> None:
        self._hangs = location == "hang"

    def write(self, record: Record) -> None:
        if self._hangs:
            self.released.wait(60)
        raise OutputError("nobody answers")

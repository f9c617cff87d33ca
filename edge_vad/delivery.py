"""Between records and sinks (a first form: local sinks only; remote sinks get threads of their own)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edge_vad.eventlog import EventLog
from edge_vad.plugins import load
from edge_vad.record import Record
from edge_vad.sinks.base import Sink


class Delivery:
    """Hands records to the event log and the sinks."""

    def __init__(self, sinks: Sequence[str], log: EventLog | None = None) -> None:
        self._log = log
        self.log_failing = ""
        self._sinks = [load("sinks", s.partition(":")[0], Sink)(s.partition(":")[2]) for s in sinks]

    def write(self, record: Record) -> None:
        if self._log:
            self._log.append(record)
        for sink in self._sinks:
            sink.write(record)

    def tick(self) -> None:
        pass

    def status(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()

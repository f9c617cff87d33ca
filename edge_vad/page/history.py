"""The latest records as the page shows them: an anomaly's start, updates and end are one event, the rest are notices."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

N_EVENTS = 200
N_NOTICES = 50


@dataclass(slots=True)
class Entry:
    """One event. record: the start's values with the later ones over them. ours: of this run of the unit."""

    record: dict[str, Any]
    state: Literal["running", "over", "cut off"]
    time: str
    ours: bool


class History:
    """Filled by the detection loop, read by the clients' threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque(maxlen=N_EVENTS)
        self._notices: deque[dict[str, Any]] = deque(maxlen=N_NOTICES)

    def remember(self, plains: Iterable[dict[str, Any]]) -> None:
        """Records of earlier runs; an event that was not ended there was cut off."""
        for plain in plains:
            self.add(plain, ours=False)
        with self._lock:
            for entry in self._entries:
                if not entry.ours and entry.state == "running":
                    entry.state = "cut off"

    def add(self, plain: dict[str, Any], ours: bool = True) -> None:
        """The next record."""
        with self._lock:
            if plain.get("type") != "anomaly":
                self._notices.append(plain)
                return
            entry = None if plain.get("kind") == "start" else self._running(plain)
            if entry is None:  # a start, or what follows a start that nobody remembers
                entry = Entry({}, "running", str(plain.get("time", "")), ours)
                self._entries.append(entry)
            entry.record = {**entry.record, **plain}
            if plain.get("kind") == "end":
                entry.state = "over"

    def events(self, n: int) -> list[Entry]:
        """The latest events, newest first."""
        with self._lock:
            return [Entry(e.record, e.state, e.time, e.ours) for e in list(self._entries)[: -n - 1 : -1]]

    def notices(self, n: int) -> list[dict[str, Any]]:
        """The latest records that are no anomalies, newest first."""
        with self._lock:
            return list(self._notices)[: -n - 1 : -1]

    def _running(self, plain: dict[str, Any]) -> Entry | None:
        """The event that a record ends: ids start again with each connection, so it is the latest of them."""
        wanted = (plain.get("camera"), plain.get("id"))
        for entry in reversed(self._entries):
            if (entry.record.get("camera"), entry.record.get("id")) == wanted:
                return entry if entry.state == "running" else None
        return None

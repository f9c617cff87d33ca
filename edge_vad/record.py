"""What a unit tells the world: anomalies and its own state, one record each, with clocks that can be trusted.

A record carries a sequence number that never restarts, the boot it belongs to, the monotonic clock that orders it within
that boot, and the wall clock, which may step (a Raspberry Pi has no battery for it).
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

from edge_vad.types import Event

Type = Literal["anomaly", "camera", "view", "load", "backend", "bundle", "storage", "unit"]
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the event log, one message to a broker.

    seq: counts the records of this unit. boot: id of the boot of the system. monotonic_s: seconds on its monotonic clock.
    time: wall clock, UTC, ISO 8601. camera: its name, empty for the whole unit. type, kind: what happened, see the table
    in docs/live.md. data: the rest, plain JSON values.
    """

    seq: int
    boot: str
    monotonic_s: float
    time: str
    camera: str
    type: Type
    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def alarm(self) -> bool:
        """Whether somebody may be waiting for it: it is synced to the medium at once."""
        return self.type in ("anomaly", "camera", "view")

    def plain(self) -> dict[str, Any]:
        """The record as one flat JSON object; ``data`` beside the other keys."""
        named = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "data"}
        return {**self.data, **named}

    def line(self) -> str:
        """The record as one line of JSON, without the newline."""
        return json.dumps(self.plain(), sort_keys=True, allow_nan=False)

    @classmethod
    def parse(cls, plain: Mapping[str, Any]) -> Record:
        """The record of a flat JSON object; KeyError when it is none."""
        names = [f.name for f in dataclasses.fields(cls) if f.name != "data"]
        data = {key: value for key, value in plain.items() if key not in names}
        return cls(**{name: plain[name] for name in names}, data=data)


class Recorder:
    """Numbers and dates records."""

    def __init__(self, last_seq: int = 0) -> None:
        """last_seq: number of the last record that was ever written here."""
        self._seq = last_seq
        self._boot = _boot_id()

    def record(self, camera: str, type: Type, kind: str, data: Mapping[str, Any] | None = None) -> Record:
        """The next record, dated now."""
        self._seq += 1
        wall = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return Record(self._seq, self._boot, round(time.monotonic(), 4), wall, camera, type, kind, data or {})

    def event(self, camera: str, event: Event, data: Mapping[str, Any] | None = None) -> Record:
        """The record of an anomaly; data: what belongs to it beside the event, such as the files of its pictures."""
        return self.record(camera, "anomaly", event.kind, {**event_data(event), **(data or {})})


def event_data(event: Event) -> dict[str, Any]:
    """An event as plain JSON values; scores rounded to four digits, boxes to a tenth of a pixel."""
    plain = dataclasses.asdict(event)
    del plain["kind"]
    plain["regions"] = [
        {"box": [_rounded(v, 1) for v in (r.x0, r.y0, r.x1, r.y1)], "score": _rounded(r.score)} for r in event.regions
    ]
    plain["components"] = {name: _rounded(value) for name, value in event.components.items()}
    for key in ("peak_score", "start_s", "end_s"):
        plain[key] = None if plain[key] is None else _rounded(plain[key])
    return plain


def _rounded(value: float, digits: int = 4) -> float | None:
    """A number for JSON, which has no NaN: an alarm must not be lost over one of its details."""
    return round(value, digits) if math.isfinite(value) else None


def _boot_id() -> str:
    """Changes with every boot; where the system has none, with every start of the program."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return str(uuid.uuid4())

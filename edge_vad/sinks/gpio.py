"""An output line that is on while an anomaly lasts: a lamp, a relay, an alarm panel."""

from __future__ import annotations

import logging
import threading
from typing import Any

from edge_vad.errors import OutputError, did_you_mean
from edge_vad.plugins import require
from edge_vad.record import Record
from edge_vad.sinks.base import Sink

log = logging.getLogger(__name__)
OPTIONS = ("active", "hold")


class Gpio(Sink):
    """``gpio:LINE[,active=low][,hold=SECONDS]``: on while any camera's anomaly lasts, and ``hold`` seconds longer."""

    def __init__(self, location: str) -> None:
        line, active_high, self._hold_s = _parse(location)
        gpiozero: Any = require("gpiozero", "gpiozero", "the sink gpio")
        self._error: type[Exception] = gpiozero.GPIOZeroError
        self._name = f"gpio:{line}"
        try:
            self._line = gpiozero.DigitalOutputDevice(line, active_high=active_high, initial_value=False)
        except (self._error, OSError) as error:
            raise OutputError(f"{self._name}: the line cannot be used: {error}") from error
        self._active: set[str] = set()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def write(self, record: Record) -> None:
        if record.type != "anomaly":
            return
        with self._lock:
            if record.kind == "end":
                self._active.discard(record.camera)
            else:
                self._active.add(record.camera)
            self._cancel()
            if self._active or not self._hold_s:
                self._set(bool(self._active))
            elif self._line.value:
                self._timer = threading.Timer(self._hold_s, self._held)
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        with self._lock:
            self._cancel()
            if not self._line.closed:
                self._set(False)
                self._line.close()

    def _held(self) -> None:
        with self._lock:
            if not self._active and not self._line.closed:
                try:
                    self._set(False)
                except OutputError as error:  # in a thread of its own: nobody is there to catch it
                    log.error("%s", error)

    def _cancel(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _set(self, on: bool) -> None:
        try:
            self._line.value = on
        except (self._error, OSError) as error:
            raise OutputError(f"{self._name}: cannot be switched: {error}") from error


def _parse(location: str) -> tuple[int, bool, float]:
    """Number of the line, whether high is on, seconds to hold it."""
    line, *rest = location.split(",")
    options = {}
    for option in rest:
        key, _, value = option.partition("=")
        if key not in OPTIONS:
            raise OutputError(f"gpio:{location}: unknown option {key!r}{did_you_mean(key, OPTIONS)}")
        options[key] = value
    try:
        hold = float(options.get("hold", 0))
    except ValueError:
        hold = -1.0
    if not line.isdecimal() or options.get("active", "high") not in ("high", "low") or not 0 <= hold <= 86400:
        raise OutputError(f"gpio:{location}: expected LINE[,active=high|low][,hold=SECONDS], LINE a number as in GPIO17")
    return int(line), options.get("active") != "low", hold

"""PYTHONPATH=firmware_examples edge-vad run --bundle site.evb --source picamera2:0 --sink gpio_alarm.siren:17,27,30

A siren at GPIO17 that sounds for 30 seconds at most, and a button from GPIO27 to ground that mutes it until nothing
unusual is seen any more. A sink of your own: all rules are in write() and _mute().
"""

import threading

from edge_vad.errors import OutputError
from edge_vad.plugins import require
from edge_vad.record import Record
from edge_vad.sinks import Sink


class Siren(Sink):
    def __init__(self, location: str) -> None:
        try:
            siren, button, self._hold_s = (int(part) for part in location.split(","))
        except ValueError as error:
            raise OutputError(f"siren {location!r}: expected SIREN,BUTTON,SECONDS such as 17,27,30") from error
        gpiozero = require("gpiozero", "gpiozero", "the siren")
        self._errors = (gpiozero.GPIOZeroError, OSError)
        self._lasting: set[str] = set()  # cameras that see something unusual
        self._muted = False
        self._lock = threading.Lock()  # the button has a thread of its own
        try:
            self._siren = gpiozero.DigitalOutputDevice(siren)
            self._button = gpiozero.Button(button, bounce_time=0.05)
        except self._errors as error:
            raise OutputError(f"siren: GPIO{siren} or GPIO{button} cannot be used: {error}") from error
        self._button.when_pressed = self._mute

    def write(self, record: Record) -> None:
        """Called with every record before the next frame is scored: it must be quick."""
        with self._lock:
            if record.type == "anomaly" and record.kind == "start":
                self._lasting.add(record.camera)
                if not self._muted:
                    self._sound()
            elif record.type == "anomaly" and record.kind == "end":
                self._lasting.discard(record.camera)
                self._muted = self._muted and bool(self._lasting)

    def _sound(self) -> None:
        try:
            self._siren.blink(on_time=self._hold_s, off_time=0, n=1)  # once, in the background, from the beginning again
        except self._errors as error:
            raise OutputError(f"siren: cannot be switched: {error}") from error

    def _mute(self) -> None:
        with self._lock:
            self._muted = bool(self._lasting)
            self._siren.off()

    def close(self) -> None:
        self._button.close()
        if not self._siren.closed:
            self._siren.off()
            self._siren.close()

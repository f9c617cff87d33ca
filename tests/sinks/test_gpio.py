"""The output line, on gpiozero's own simulated pins."""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

from edge_vad.errors import MissingPackageError, OutputError
from edge_vad.record import Record
from edge_vad.sinks.gpio import Gpio

gpiozero = pytest.importorskip("gpiozero", reason="pip install gpiozero")
pytestmark = pytest.mark.usefixtures("pins")


def anomaly(kind: str, camera: str = "gate", type: Any = "anomaly") -> Record:
    return Record(1, "boot", 0.1, "2026-01-01T00:00:00.000Z", camera, type, kind)


@pytest.mark.parametrize(("location", "on"), [("17", 1), ("17,active=high", 1), ("17,active=low", 0)])
def test_the_line_is_on_while_any_anomaly_lasts(pins: Any, location: str, on: int) -> None:
    with Gpio(location) as sink:
        pin = pins.pin(17)
        steps = [
            (anomaly("lost", type="camera"), False),
            (anomaly("start"), True),
            (anomaly("update"), True),
            (anomaly("start", "door"), True),
            (anomaly("end"), True),
            (anomaly("black", "door", "view"), True),
            (anomaly("end", "door"), False),
            (anomaly("end", "door"), False),
            (anomaly("update"), True),
        ]
        assert pin.state == 1 - on
        for record, expected in steps:
            sink.write(record)
            assert pin.state == (on if expected else 1 - on)
    assert not pin.state or on == 0  # released: off
    sink.close()


def until(holds: Any) -> None:
    give_up = time.monotonic() + 5
    while not holds() and time.monotonic() < give_up:
        time.sleep(0.01)
    assert holds()


def test_the_line_is_held_after_the_last_anomaly(pins: Any) -> None:
    with Gpio("17,hold=0.3") as sink:
        pin = pins.pin(17)
        start = time.monotonic()
        sink.write(anomaly("start"))
        sink.write(anomaly("end"))
        assert pin.state == 1
        until(lambda: pin.state == 0)
        assert time.monotonic() - start >= 0.3
        sink.write(anomaly("end"))  # it is off already
        assert pin.state == 0
        sink.write(anomaly("start"))
        sink.write(anomaly("end"))
        sink.write(anomaly("start", "door"))  # another one while it is held
        time.sleep(0.4)
        assert pin.state == 1
        sink.write(anomaly("end", "door"))
    assert pin.state == 0  # closed while it was held


@pytest.mark.parametrize(
    "location", ["", "GPIO17", "-1", "17,active=up", "17,hold=-1", "17,hold=x", "17,hold=nan", "17,hold=1e9"]
)
def test_locations_that_are_none_are_refused(location: str) -> None:
    with pytest.raises(OutputError, match="expected LINE"):
        Gpio(location)


def test_a_line_that_cannot_be_used_is_an_output_error() -> None:
    with pytest.raises(OutputError, match="gpio:99: the line cannot be used"):
        Gpio("99")
    with Gpio("17"), pytest.raises(OutputError, match="gpio:17: the line cannot be used"):
        Gpio("17")


def test_an_error_of_the_line_is_an_output_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with Gpio("17") as sink:

        def fails(*_: Any) -> None:
            raise gpiozero.GPIOZeroError("gone")

        with monkeypatch.context() as patched, pytest.raises(OutputError, match="gpio:17: cannot be switched: gone"):
            patched.setattr(gpiozero.DigitalOutputDevice, "value", property(lambda _: 0, fails))
            sink.write(anomaly("start"))
        sink.write(anomaly("start"))


def test_without_the_package_the_pip_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpiozero", None)
    with pytest.raises(MissingPackageError, match="pip install 'gpiozero'"):
        Gpio("17")

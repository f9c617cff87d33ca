"""What boards say of themselves, read from fake roots; nothing here ran on a board."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import boards
import pytest

from edge_vad import telemetry as board
from edge_vad.telemetry import telemetry

MEMORY_MB = round(25600 * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)
COMMON = {"load": 0.52, "memory_mb": MEMORY_MB, "available_mb": 6000}


def test_a_raspberry_pi_5(tmp_path: Path) -> None:
    assert telemetry(boards.raspberry_pi_5(tmp_path)) == {
        **COMMON,
        "model": "Raspberry Pi 5 Model B Rev 1.0",
        "temperature_c": 51.2,
        "clock_mhz": 1500.003,
        "governor": "ondemand",
        "throttled": [],
    }


def test_a_jetson(tmp_path: Path) -> None:
    assert telemetry(boards.jetson(tmp_path)) == {
        **COMMON,
        "model": "NVIDIA Jetson Orin Nano Developer Kit",
        "temperature_c": 49.2,  # not the zone that is off
        "clock_mhz": 1510.4,
        "governor": "schedutil",
        "throttled": [],
        "gpu_percent": 43.7,
        "power_w": 6.0,  # what goes in, not the sum of the rails
    }


def test_a_pc(tmp_path: Path) -> None:
    assert telemetry(boards.desktop(tmp_path)) == {
        **COMMON,
        "model": "OptiPlex 7010",
        "temperature_c": 46.0,  # of the processor, not of the disk
        "clock_mhz": 3400.0,
        "governor": "powersave",
    }


def test_an_empty_root_says_nothing(tmp_path: Path) -> None:
    assert telemetry(tmp_path) == {}


def test_this_machine_says_plain_values() -> None:
    found = telemetry()
    assert found["memory_mb"] > 10 and found["available_mb"] > 10
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    ("bits", "told"),
    [
        ("0", []),
        ("1", ["under-voltage"]),
        ("50000", ["under-voltage since boot", "throttled since boot"]),
        ("50005", ["under-voltage", "throttled", "under-voltage since boot", "throttled since boot"]),
        ("e0008", ["soft temperature limit", *(f"{t} since boot" for t in list(board.THROTTLE_BITS.values())[1:])]),
    ],
)
def test_the_bits_of_the_firmware(bits: str, told: list[str], tmp_path: Path) -> None:
    assert board.throttled(boards.raspberry_pi_5(tmp_path, bits)) == told


def test_alarms_of_sensors_count_once(tmp_path: Path) -> None:
    root = boards.raspberry_pi_5(tmp_path, "1")
    boards.write(root, {"sys/class/hwmon/hwmon2/in0_lcrit_alarm": "1\n"})
    assert board.throttled(root) == ["under-voltage"]
    assert board.throttled(boards.jetson(tmp_path / "jetson", 2)) == ["over-current since boot"]


def test_a_sensor_that_answers_nothing_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = boards.raspberry_pi_5(tmp_path)
    (root / "sys/class/thermal/thermal_zone1").mkdir()
    boards.write(root, {"sys/class/thermal/thermal_zone2/temp": "no number\n"})
    read_text = Path.read_text

    def refuse(path: Path, *arguments: Any, **named: Any) -> str:
        if path.name == "get_throttled":
            raise OSError(11, "Resource temporarily unavailable")
        return read_text(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", refuse)
    assert board.temperature_c(root) == 51.2
    assert board.throttled(root) == []  # its other sensor says so

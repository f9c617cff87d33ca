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


def test_energy_is_the_sum_of_the_packages(tmp_path: Path) -> None:
    root = boards.rapl(tmp_path, zone_0=5_000_000, zone_1=7_000_000, zone_0_0=1_000_000, zone_2=90_000_000)
    meter = board.EnergyMeter(root)
    assert meter.read() == 0
    boards.rapl(root, zone_0=6_500_000, zone_1=7_250_000, zone_0_0=2_000_000, zone_2=99_000_000)
    assert meter.read() == pytest.approx(1.75)  # neither the cores, which are in a package, nor the platform around both
    assert meter.read() == pytest.approx(1.75)


def test_an_energy_counter_that_wraps_around_goes_on(tmp_path: Path) -> None:
    meter = board.EnergyMeter(boards.rapl(tmp_path, zone_0=999_000_000))
    boards.rapl(tmp_path, zone_0=2_000_000)
    assert meter.read() == pytest.approx(3.0)
    boards.rapl(tmp_path, zone_0=4_000_000)
    assert meter.read() == pytest.approx(5.0)


def test_energy_that_only_root_may_read_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = boards.rapl(tmp_path, zone_0=5_000_000, zone_1=5_000_000)
    read = Path.read_text

    def refused(path: Path, *arguments: Any, **options: Any) -> str:
        if path.name == "energy_uj" and closed in str(path):
            raise PermissionError(13, "Permission denied")
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", refused)
    closed = "intel-rapl"
    assert board.EnergyMeter(root).read() is None
    closed = "nothing"
    meter = board.EnergyMeter(root)
    assert meter.read() == 0
    closed = "intel-rapl:1"  # half a sum would be wrong
    assert meter.read() is None and meter.read() is None
    assert board.EnergyMeter(tmp_path / "elsewhere").read() is None


def test_the_processor_says_its_name(tmp_path: Path) -> None:
    boards.write(tmp_path, {"proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD Ryzen 7\nprocessor\t: 1\n"})
    assert board.processor(tmp_path) == "AMD Ryzen 7"
    assert board.processor(boards.write(tmp_path / "pi", {"proc/cpuinfo": "processor\t: 0\n"})) is None

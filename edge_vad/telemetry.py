"""What a board says of itself: temperature, clock, throttling, load, memory. Readers take the root folder of the system.

Every file is optional: what a board does not tell is left out, never guessed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

PAGE = 4096
THROTTLE_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
HAPPENED = 16  # the same bits, shifted: since boot


def telemetry(root: Path = Path("/")) -> dict[str, Any]:
    """Everything that can be read, as plain values; keys that are missing were not told."""
    found = {
        "model": _text(root / "proc/device-tree/model"),
        "temperature_c": temperature_c(root),
        "clock_mhz": clock_mhz(root),
        "throttled": throttled(root),
        "load": _load(root),
        "memory_mb": memory_mb(root),
        "available_mb": available_mb(root),
    }
    return {key: value for key, value in found.items() if value is not None}


def temperature_c(root: Path = Path("/")) -> float | None:
    """The hottest thermal zone, degrees Celsius."""
    zones = (_number(zone / "temp") for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")))
    readings = [zone / 1000 for zone in zones if zone is not None and zone > 0]  # negative: the sensor is off
    return round(max(readings), 1) if readings else None


def clock_mhz(root: Path = Path("/")) -> float | None:
    """The fastest core's present clock."""
    cores = root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_cur_freq")
    clocks = [value / 1000 for core in cores if (value := _number(core)) is not None]
    return max(clocks) if clocks else None


def throttled(root: Path = Path("/")) -> list[str] | None:
    """What a Raspberry Pi's firmware complains of, now or since boot; None on other boards."""
    for path in sorted(root.glob("sys/devices/platform/soc*/soc*:firmware/get_throttled")):
        try:
            bits = int(_text(path) or "", 16)
        except ValueError:
            continue
        now = [text for bit, text in THROTTLE_BITS.items() if bits >> bit & 1]
        before = [f"{text} since boot" for bit, text in THROTTLE_BITS.items() if bits >> (bit + HAPPENED) & 1]
        return now + before
    return None


def memory_mb(root: Path = Path("/")) -> float | None:
    """Resident memory of this process."""
    fields = (_text(root / "proc/self/statm") or "").split()
    return round(int(fields[1]) * PAGE / 2**20, 1) if len(fields) > 1 else None


def available_mb(root: Path = Path("/")) -> float | None:
    """Memory that the system can still give."""
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemAvailable:"):
            return round(int(line.split()[1]) / 1024)
    return None


def _load(root: Path) -> float | None:
    fields = (_text(root / "proc/loadavg") or "").split()
    return float(fields[0]) if fields else None


def _number(path: Path) -> float | None:
    try:
        return float(_text(path) or "")
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:  # sensors answer EAGAIN and worse
        return None

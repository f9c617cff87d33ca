"""What a board says of itself: temperature, clock, throttling, load, memory, power. Readers take the system's root folder.

Every file is optional: what a board does not tell is left out, never guessed. Sources: the Linux sysfs documentation, the
drivers raspberrypi-hwmon, ina3221 and soctherm; nothing here was read on a Jetson or a Raspberry Pi.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

THROTTLE_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
HAPPENED = 16  # the same bits, shifted: since boot
GPUS = ("gpu", "gv11b", "gp10b", "gm20b", "ga10b", "gb10b")  # names of a Jetson's GPU in the device tree
TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "SYS_VIN_HV")  # what goes into a Jetson as a whole


def telemetry(root: Path = Path("/")) -> dict[str, Any]:
    """Everything that can be read, as plain values; keys that are missing were not told."""
    found = {
        "model": model(root),
        "temperature_c": temperature_c(root),
        "clock_mhz": clock_mhz(root),
        "governor": governor(root),
        "throttled": throttled(root),
        "gpu_percent": gpu_percent(root),
        "power_w": power_w(root),
        "load": load(root),
        "memory_mb": memory_mb(root),
        "available_mb": available_mb(root),
    }
    return {key: value for key, value in found.items() if value is not None}


def model(root: Path = Path("/")) -> str | None:
    """The board's name; on a PC, its maker's."""
    for path in ("proc/device-tree/model", "sys/class/dmi/id/product_name"):
        if told := _text(root / path):
            return told
    return None


def processor(root: Path = Path("/")) -> str | None:
    """The processor's own name, where /proc/cpuinfo has one (ARM boards have not)."""
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip() or None
    return None


def temperature_c(root: Path = Path("/")) -> float | None:
    """The hottest thermal zone, degrees Celsius; the hottest processor sensor where there is no zone."""
    zones = [_number(zone / "temp") for zone in sorted(root.glob("sys/class/thermal/thermal_zone*"))]
    if not zones:
        sensors = [folder for name in ("coretemp", "k10temp", "cpu_thermal") for folder in hwmon(root, name)]
        zones = [_number(path) for folder in sensors for path in sorted(folder.glob("temp*_input"))]
    readings = [zone / 1000 for zone in zones if zone is not None and zone > 0]  # negative: the sensor is off
    return round(max(readings), 1) if readings else None


def clock_mhz(root: Path = Path("/")) -> float | None:
    """The fastest core's present clock."""
    cores = root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq")
    clocks = [value / 1000 for core in cores if (value := _number(core)) is not None]
    return max(clocks) if clocks else None


def governor(root: Path = Path("/")) -> str | None:
    """How the kernel chooses the clock; several where the cores differ."""
    cores = root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")
    return "+".join(sorted({told for core in cores if (told := _text(core))})) or None


def throttled(root: Path = Path("/")) -> list[str] | None:
    """What slows the board down or did since boot, in words; None where it cannot tell.

    A Raspberry Pi's firmware tells by bits, its voltage sensor by an alarm, a Jetson by counts of over-current events.
    """
    firmware, alarm = _firmware(root), _alarm(root)
    found = [*(firmware or []), *(alarm or [])]
    return None if firmware is None and alarm is None else list(dict.fromkeys(found))


def gpu_percent(root: Path = Path("/")) -> float | None:
    """Load of a Jetson's GPU."""
    for device in sorted(root.glob("sys/class/devfreq/*")):
        if device.name == "gpu-gpc-0" or _text(device / "device/of_node/name") in GPUS:
            busy = _number(device / "device/load")  # thousandths
            return None if busy is None else busy / 10
    return None


def power_w(root: Path = Path("/")) -> float | None:
    """What goes into the board as a whole, watts; a sum of single rails would count some of it twice."""
    rails = dict(_rails(root))
    total = next((rails[name] for name in TOTAL_RAILS if name in rails), None)
    return None if total is None else round(total, 2)


def load(root: Path = Path("/")) -> float | None:
    """Processes that ran or wanted to, on average over a minute."""
    fields = (_text(root / "proc/loadavg") or "").split()
    return float(fields[0]) if fields else None


def memory_mb(root: Path = Path("/")) -> float | None:
    """Resident memory of this process."""
    fields = (_text(root / "proc/self/statm") or "").split()
    return round(int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20, 1) if len(fields) > 1 else None


def available_mb(root: Path = Path("/")) -> float | None:
    """Memory that the system can still give."""
    return _meminfo(root, "MemAvailable")


def total_mb(root: Path = Path("/")) -> float | None:
    """Memory that the system has."""
    return _meminfo(root, "MemTotal")


class EnergyMeter:
    """Joules of the processor packages since the meter was made, by their RAPL counters (Intel; AMD with the same driver).

    Sub-zones (cores, memory) are part of a package and left out. Counters wrap around, after minutes at the soonest, and
    since Linux 5.10 only root may read them. Source: Documentation/power/powercap/powercap.rst.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._joules = 0.0
        self._last: dict[Path, tuple[float, float]] = {}  # counter and its range, microjoules
        for zone in sorted(root.glob("sys/class/powercap/intel-rapl:*")):
            counter, span = _number(zone / "energy_uj"), _number(zone / "max_energy_range_uj")
            if (_text(zone / "name") or "").startswith("package") and counter is not None and span is not None:
                self._last[zone] = counter, span

    def read(self) -> float | None:
        """Joules so far, None where nothing tells; to be called once a minute or more often."""
        for zone, (before, span) in self._last.items():
            counter = _number(zone / "energy_uj")
            if counter is None:
                self._last = {}  # half a sum would be wrong
                break
            self._joules += (counter - before + (span if counter < before else 0)) / 1e6
            self._last[zone] = counter, span
        return self._joules if self._last else None


def hwmon(root: Path, name: str) -> list[Path]:
    """The sensors of that name: their numbers change from boot to boot."""
    return [folder for folder in sorted(root.glob("sys/class/hwmon/hwmon*")) if _text(folder / "name") == name]


def _firmware(root: Path) -> list[str] | None:
    for path in sorted(root.glob("sys/devices/platform/soc*/soc*:firmware/get_throttled")):
        try:
            bits = int(_text(path) or "", 16)
        except ValueError:
            continue
        now = [text for bit, text in THROTTLE_BITS.items() if bits >> bit & 1]
        before = [f"{text} since boot" for bit, text in THROTTLE_BITS.items() if bits >> (bit + HAPPENED) & 1]
        return now + before
    return None


def _alarm(root: Path) -> list[str] | None:
    """Alarms of sensors; None where there is no such sensor."""
    told = {"under-voltage": [_number(folder / "in0_lcrit_alarm") for folder in hwmon(root, "rpi_volt")]}
    counts = [path for folder in hwmon(root, "soctherm_oc") for path in sorted(folder.glob("oc*_event_cnt"))]
    told["over-current since boot"] = [_number(path) for path in counts]
    if not any(value is not None for values in told.values() for value in values):
        return None
    return [text for text, values in told.items() if any(values)]


def _rails(root: Path) -> Iterator[tuple[str, float]]:
    """Names and watts of the rails that a Jetson measures."""
    for device in sorted(root.glob("sys/bus/i2c/devices/*")):
        if not (_text(device / "name") or "").startswith(("ina3221", "ina238")):
            continue
        for label in sorted(device.glob("hwmon/hwmon*/in*_label")):
            number = label.name.removeprefix("in").removesuffix("_label")
            name = _text(label) or ""
            volt, ampere = (_number(label.with_name(f"{kind}{number}_input")) for kind in ("in", "curr"))
            if volt is not None and ampere is not None and "NC" not in name:
                yield name, volt * ampere / 1e6


def _meminfo(root: Path, key: str) -> float | None:
    for line in (_text(root / "proc/meminfo") or "").splitlines():
        if line.startswith(f"{key}:"):
            return round(int(line.split()[1]) / 1024)
    return None


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

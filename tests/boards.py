"""Fake roots of boards: the files of /proc and /sys that edge-vad reads, as a Raspberry Pi, a Jetson and a PC have them."""

from __future__ import annotations

from pathlib import Path


def write(root: Path, files: dict[str, str]) -> Path:
    """Files below a root; text as the kernel gives it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


COMMON = {
    "proc/loadavg": "0.52 0.41 0.30 1/234 5678\n",
    "proc/meminfo": "MemTotal:        8130000 kB\nMemFree:          300000 kB\nMemAvailable:    6144000 kB\n",
    "proc/self/statm": "60000 25600 9000 1 0 30000 0\n",
}


def raspberry_pi_5(root: Path, throttled: str = "0", governor: str = "ondemand", millidegrees: int = 51200) -> Path:
    """throttled: the firmware's bits, hexadecimal without 0x."""
    cores = {
        f"sys/devices/system/cpu/cpu{i}/cpufreq/{name}": f"{text}\n"
        for i in range(4)
        for name, text in (("scaling_cur_freq", str(1500000 + i)), ("scaling_governor", governor), ("scaling_driver", "dt"))
    }
    return write(
        root,
        {
            **COMMON,
            **cores,
            "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
            "sys/class/thermal/thermal_zone0/temp": f"{millidegrees}\n",
            "sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": f"{throttled}\n",
            "sys/class/hwmon/hwmon2/name": "rpi_volt\n",
            "sys/class/hwmon/hwmon2/in0_lcrit_alarm": "0\n",
            "sys/class/rtc/rtc0/name": "rpi-rtc\n",
        },
    )


def jetson(root: Path, n_over_current: int = 0) -> Path:
    """A Jetson Orin Nano: sensors that are off answer negative, rails are measured one by one."""
    zones = {"cpu-thermal": 48500, "gpu-thermal": 49250, "soc0-thermal": 47000, "cv0-thermal": -256000}
    files = {}
    for i, (kind, value) in enumerate(zones.items()):
        files[f"sys/class/thermal/thermal_zone{i}/type"] = f"{kind}\n"
        files[f"sys/class/thermal/thermal_zone{i}/temp"] = f"{value}\n"
    rails = "sys/bus/i2c/devices/1-0040/hwmon/hwmon1"
    for number, (label, millivolt, milliampere) in enumerate(
        [("VDD_IN", 5000, 1200), ("VDD_CPU_GPU_CV", 5000, 400), ("NC", 0, 0)], 1
    ):
        files[f"{rails}/in{number}_label"] = f"{label}\n"
        files[f"{rails}/in{number}_input"] = f"{millivolt}\n"
        files[f"{rails}/curr{number}_input"] = f"{milliampere}\n"
    files[f"{rails}/in7_label"] = "sum of shunt voltages\n"
    return write(
        root,
        {
            **COMMON,
            **files,
            "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
            "etc/nv_tegra_release": "# R36 (release)\n",
            "sys/bus/i2c/devices/1-0040/name": "ina3221\n",
            "sys/class/devfreq/17000000.gpu/device/of_node/name": "gpu\0",
            "sys/class/devfreq/17000000.gpu/device/load": "437\n",
            "sys/class/hwmon/hwmon3/name": "soctherm_oc\n",
            "sys/class/hwmon/hwmon3/oc1_event_cnt": "0\n",
            "sys/class/hwmon/hwmon3/oc3_event_cnt": f"{n_over_current}\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1510400\n",
        },
    )


def rapl(root: Path, **microjoules: int) -> Path:
    """RAPL counters of packages and what is in them, by zone (``zone_0_1``: intel-rapl:0:1); 1000 J and they wrap around."""
    names = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "core", "intel-rapl:1": "package-1", "intel-rapl:2": "psys"}
    for zone, value in microjoules.items():
        name = "intel-rapl:" + zone.removeprefix("zone_").replace("_", ":")
        told = {"name": names[name], "energy_uj": str(value), "max_energy_range_uj": "1000000000"}
        write(root, {f"sys/class/powercap/{name}/{file}": f"{text}\n" for file, text in told.items()})
    return root


def desktop(root: Path) -> Path:
    """No thermal zones, but sensors; powersave of intel_pstate, which is no slow clock."""
    return write(
        root,
        {
            **COMMON,
            "sys/class/dmi/id/product_name": "OptiPlex 7010\n",
            "sys/class/hwmon/hwmon0/name": "nvme\n",
            "sys/class/hwmon/hwmon0/temp1_input": "61000\n",
            "sys/class/hwmon/hwmon1/name": "coretemp\n",
            "sys/class/hwmon/hwmon1/temp1_input": "44000\n",
            "sys/class/hwmon/hwmon1/temp2_input": "46000\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "intel_pstate\n",
            "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "3400000\n",
        },
    )

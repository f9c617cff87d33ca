"""What an NVIDIA GPU says of itself through NVML: power, temperature, clock, load, memory, throttling.

Needs the package nvidia-ml-py and NVIDIA's driver; a Jetson's GPU is read by `edge_vad.telemetry`. Source: NVML API
reference, "Device Queries".
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

from edge_vad.errors import BackendError
from edge_vad.plugins import require

PACKAGE = "nvidia-ml-py"
# nvmlClocksEventReasons: the bits that mean less than the full clock, without idling and the user's own settings.
THROTTLE_BITS = {2: "power cap", 3: "hardware slowdown", 5: "software thermal", 6: "hardware thermal", 7: "power brake"}


class Nvml:
    """One GPU. Raises MissingPackageError without the package, BackendError without the driver or the GPU."""

    def __init__(self, device: str) -> None:
        """device: as a profile names it, ``cuda`` or ``cuda:1``; CUDA_VISIBLE_DEVICES is followed."""
        self._nvml = require("pynvml", PACKAGE, "power and temperature of a GPU")
        try:
            self._nvml.nvmlInit()
            self._gpu = self._handle(int(device.partition(":")[2] or 0))
            self.name = str(self._nvml.nvmlDeviceGetName(self._gpu))
            self.driver = str(self._nvml.nvmlSystemGetDriverVersion())
        except self._nvml.NVMLError as error:
            raise BackendError(f"NVML tells nothing of {device}: {error}; is NVIDIA's driver loaded?") from error

    def read(self) -> dict[str, Any]:
        """Plain values; a GPU that does not support one leaves it out."""
        nvml, gpu = self._nvml, self._gpu
        readings: dict[str, Callable[[], Any]] = {
            "gpu_power_w": lambda: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
            "gpu_temperature_c": lambda: float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
            "gpu_clock_mhz": lambda: float(nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
            "gpu_percent": lambda: float(nvml.nvmlDeviceGetUtilizationRates(gpu).gpu),
            "gpu_memory_mb": lambda: round(nvml.nvmlDeviceGetMemoryInfo(gpu).used / 2**20, 1),
            "gpu_throttled": lambda: self._throttled(),
        }
        found = {}
        for name, read in readings.items():
            with contextlib.suppress(nvml.NVMLError):  # not supported by this GPU
                found[name] = read()
        return found

    def energy_j(self) -> float | None:
        """Joules since the driver was loaded; None where the GPU does not count them."""
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._gpu) / 1000)
        except self._nvml.NVMLError:
            return None

    def close(self) -> None:
        """Release the library."""
        with contextlib.suppress(self._nvml.NVMLError):
            self._nvml.nvmlShutdown()

    def _handle(self, number: int) -> Any:
        """The GPU that CUDA calls by that number: NVML itself does not know CUDA_VISIBLE_DEVICES."""
        visible = [entry.strip() for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry.strip()]
        entry = visible[number] if number < len(visible) else str(number)
        if entry.isdigit():
            return self._nvml.nvmlDeviceGetHandleByIndex(int(entry))
        return self._nvml.nvmlDeviceGetHandleByUUID(entry)

    def _throttled(self) -> list[str]:
        bits = self._nvml.nvmlDeviceGetCurrentClocksEventReasons(self._gpu)
        return [text for bit, text in THROTTLE_BITS.items() if bits >> bit & 1]

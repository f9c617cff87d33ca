"""The device that a run is measured on: what it is, and what it says of itself before, meanwhile and after."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path
from typing import Any

from edge_vad.errors import BackendError, MissingPackageError
from edge_vad.nvml import Nvml
from edge_vad.telemetry import EnergyMeter, governor, model, processor, telemetry

ROOT = Path("/")


class Board:
    """Reads telemetry. Files are those below ``root``; a GPU is asked for device ``cuda`` only."""

    def __init__(self, device: str = "cpu", root: Path = ROOT) -> None:
        self._root = root
        self._energy = EnergyMeter(root)
        self._gpu: Nvml | None = None
        self.notes: list[str] = []
        if device.startswith("cuda"):
            try:
                self._gpu = Nvml(device)
            except (MissingPackageError, BackendError) as error:
                self.notes.append(f"nothing of the GPU: {error}")
        if self._energy.read() is None and any(root.glob("sys/class/powercap/intel-rapl:*")):
            self.notes.append("no power of the processor: its counters are readable by root only")

    def read(self) -> dict[str, Any]:
        """Everything that the board tells now; `edge_vad.telemetry.telemetry` and the GPU's values."""
        return {**telemetry(self._root), **(self._gpu.read() if self._gpu else {})}

    def energy_j(self) -> dict[str, float]:
        """Joules by what counts them, since any one moment; empty where nothing does. Counters wrap: ask once a minute."""
        told = {"processor": self._energy.read(), "gpu": self._gpu.energy_j() if self._gpu else None}
        return {name: joules for name, joules in told.items() if joules is not None}

    def identity(self) -> dict[str, Any]:
        """What must be the same where two runs are compared, and what else describes the board."""
        found = {
            "model": model(self._root),
            "processor": processor(self._root),
            "machine": platform.machine(),
            "n_cpus": os.cpu_count(),
            "n_usable_cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "os": f"{platform.system()} {platform.release()}",
            "governor": governor(self._root),
            "gpu": self._gpu.name if self._gpu else None,
            "gpu_driver": self._gpu.driver if self._gpu else None,
        }
        return {key: value for key, value in found.items() if value is not None}

    def close(self) -> None:
        """Release the GPU's library."""
        if self._gpu:
            self._gpu.close()


def peak_mb() -> float:
    """The most resident memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

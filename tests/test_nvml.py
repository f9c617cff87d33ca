"""What an NVIDIA GPU says, with a library that answers as nvidia-ml-py does; nothing here ran on a GPU."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from edge_vad.errors import BackendError, MissingPackageError
from edge_vad.nvml import Nvml


class NVMLError(Exception):
    """The library's own."""


class FakeNvml(ModuleType):
    """Two GPUs: handles are their numbers or names. unsupported: functions that this GPU refuses."""

    NVMLError = NVMLError
    NVML_TEMPERATURE_GPU, NVML_CLOCK_SM = 0, 1

    def __init__(self, unsupported: tuple[str, ...] = (), reasons: int = 0) -> None:
        super().__init__("pynvml")
        self.asked: list[Any] = []
        answers: dict[str, Any] = {
            "nvmlInit": None,
            "nvmlShutdown": None,
            "nvmlSystemGetDriverVersion": "570.86",
            "nvmlDeviceGetHandleByIndex": lambda number: f"index {number}",
            "nvmlDeviceGetHandleByUUID": lambda name: f"name {name}",
            "nvmlDeviceGetName": "NVIDIA RTX",
            "nvmlDeviceGetPowerUsage": 61_500,
            "nvmlDeviceGetTemperature": 47,
            "nvmlDeviceGetClockInfo": 1830,
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=37, memory=5),
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=512 * 2**20),
            "nvmlDeviceGetTotalEnergyConsumption": 123_456,
            "nvmlDeviceGetCurrentClocksEventReasons": reasons,
        }
        for name, answer in answers.items():
            setattr(self, name, self._answering(name, answer, name in unsupported))

    def _answering(self, name: str, answer: Any, refused: bool) -> Any:
        def call(*arguments: Any) -> Any:
            if refused:
                raise NVMLError("Not Supported")
            if name.startswith("nvmlDeviceGetHandle"):
                self.asked.append(answer(*arguments))
                return self.asked[-1]
            return answer

        return call


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def install(*unsupported: str, reasons: int = 0) -> FakeNvml:
        fake = FakeNvml(unsupported, reasons)
        monkeypatch.setitem(sys.modules, "pynvml", fake)
        return fake

    return install


def test_a_gpu_in_plain_values(library: Any) -> None:
    library(reasons=1 | 4 | 64)  # idle is no throttling
    gpu = Nvml("cuda:0")
    assert gpu.read() == {
        "gpu_power_w": 61.5,
        "gpu_temperature_c": 47.0,
        "gpu_clock_mhz": 1830.0,
        "gpu_percent": 37.0,
        "gpu_memory_mb": 512.0,
        "gpu_throttled": ["power cap", "hardware thermal"],
    }
    assert (gpu.name, gpu.driver, gpu.energy_j()) == ("NVIDIA RTX", "570.86", 123.456)
    gpu.close()


def test_what_a_gpu_does_not_support_is_left_out(library: Any) -> None:
    library("nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetCurrentClocksEventReasons")
    gpu = Nvml("cuda")
    assert not {"gpu_power_w", "gpu_throttled"} & set(gpu.read()) and gpu.read()["gpu_temperature_c"] == 47
    assert gpu.energy_j() is None


@pytest.mark.parametrize(
    ("device", "visible", "asked"),
    [
        ("cuda", "", "index 0"),
        ("cuda:1", "", "index 1"),
        ("cuda:0", "3,1", "index 3"),
        ("cuda:1", "3, GPU-8f", "name GPU-8f"),
    ],
)
def test_the_gpu_is_the_one_that_cuda_means(
    device: str, visible: str, asked: str, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = library()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    Nvml(device)
    assert fake.asked == [asked]


def test_without_a_driver_or_the_package_it_says_what_to_do(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    library("nvmlInit")
    with pytest.raises(BackendError, match="cuda:0: Not Supported; is NVIDIA's driver loaded"):
        Nvml("cuda:0")
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MissingPackageError, match="pip install 'nvidia-ml-py'"):
        Nvml("cuda:0")

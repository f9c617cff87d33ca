"""The same on a GPU, where there is one: what the CPU says, without the host waiting, and within the self-test's limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
import torch
from edge_vad.converters.systems import SYSTEMS
from on_host import OnHost, check_same, opened

from edge_vad import Detector, read_bundle
from edge_vad.backends.torch import Torch
from edge_vad.profile import load_profile
from edge_vad.self_test import check_in_child
from edge_vad.tensors import transfer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU that this PyTorch can use")
FRAMES = tiny.clip_frames(44, seed=5, anomalies="all")[::2]
ON_GPU = ("inference.backend=torch", "inference.device=cuda:0")


@pytest.fixture
def waits_are_errors(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever makes the host wait for the device, but for a download."""
    wait = transfer._wait

    def meant(device: torch.device) -> None:
        torch.cuda.set_sync_debug_mode("default")
        wait(device)
        torch.cuda.set_sync_debug_mode("error")

    monkeypatch.setattr(transfer, "_wait", meant)
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_a_gpu_says_what_the_cpu_says_and_the_host_waits_for_downloads_only(
    tiny_bundle: Path, waits_are_errors: None
) -> None:
    method = opened(tiny_bundle, Torch, device="cuda:0")
    for frame in FRAMES[:4]:
        method.observe(frame)
    method.reset()
    torch.cuda.set_sync_debug_mode("error")
    assert check_same(opened(tiny_bundle, OnHost), method, FRAMES) > 20


def test_half_precision_is_within_its_tolerance(tiny_bundle: Path) -> None:
    here = Detector.open(tiny_bundle, load_profile("desktop_cpu"))
    there = Detector.open(tiny_bundle, load_profile("desktop_cpu", [*ON_GPU, "inference.precision=fp16"]))
    for frame in FRAMES:
        one, other = here.process(frame), there.process(frame)
        assert abs(other.score - one.score) < 0.02 * max(abs(one.score), 1)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_self_test_has_the_memory_that_a_gpu_takes(tiny_bundle: Path, precision: str) -> None:
    profile = load_profile("desktop_cpu", [*ON_GPU, f"inference.precision={precision}"])
    check_in_child(tiny_bundle, read_bundle(tiny_bundle).id, profile)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("method", SYSTEMS)
def test_every_network_passes_its_self_test(network_bundle: Callable[[str], Path], method: str, precision: str) -> None:
    Detector.open(network_bundle(method), load_profile("desktop_cpu", [*ON_GPU, f"inference.precision={precision}"]))

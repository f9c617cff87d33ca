"""Several cameras on one device: encoded, searched and downloaded together, and each as if it were alone."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import tiny
import torch
from altered import altered
from on_host import OnHost, check_observations, counted_downloads, opened

from edge_vad.backends.torch import Torch
from edge_vad.batch import run_together
from edge_vad.bundle import read_bundle
from edge_vad.errors import BackendError
from edge_vad.methods.base import Method, Observation
from edge_vad.profile import Inference
from edge_vad.recovery import Sessions
from edge_vad.tensors import search
from edge_vad.tensors.features import TensorEncoder
from edge_vad.tensors.search import TensorBank
from edge_vad.types import Frame

N_FRAMES = 16


def footage(camera: int) -> list[Frame]:
    return tiny.clip_frames(2 * N_FRAMES, seed=20 + camera, anomalies="all")[::2]


def cameras(bundle: Path, n: int) -> list[Method]:
    """Methods that share a session, as the cameras of a unit do."""
    backend = Sessions(lambda kind, why: None).backend(Inference("torch"))
    return [opened(read_bundle(bundle), backend) for _ in range(n)]


def together(methods: list[Method], frames: list[Frame]) -> list[Observation]:
    found = run_together([m.steps(f) for m, f in zip(methods, frames, strict=True)])
    assert not [result for result in found if isinstance(result, Exception)]
    return [result for result in found if not isinstance(result, Exception)]


@pytest.mark.parametrize("n", [2, 3])
def test_cameras_together_see_what_each_sees_alone(tiny_bundle: Path, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    methods, alone = cameras(tiny_bundle, n), [opened(tiny_bundle, OnHost) for _ in range(n)]
    n_regions = 0
    for frames in zip(*(footage(camera) for camera in range(n)), strict=True):
        with counted_downloads(monkeypatch) as sizes:
            found = together(methods, list(frames))
        assert len(sizes) == 2 if any(seen.regions for seen in found) else 1, "of all cameras, not of each"
        for seen, frame, other in zip(found, frames, alone, strict=True):
            check_observations(other.observe(frame), seen)
            n_regions += len(seen.regions)
    assert n_regions > 50


def test_one_batch_for_the_encoder_and_one_for_each_bank(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = cameras(tiny_bundle, 3)
    for frames in zip(*(footage(camera) for camera in range(3)), strict=True):
        busy = together(methods, list(frames))
    counts = {"encoder": [0], "banks": [0]}
    encode, distances = TensorEncoder.__call__, TensorBank.distances

    def encoded(self: TensorEncoder, pictures: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        counts["encoder"].append(len(pictures))
        return encode(self, pictures)

    def searched(self: TensorBank, queries: torch.Tensor) -> torch.Tensor:
        counts["banks"].append(len(queries))
        return distances(self, queries)

    monkeypatch.setattr(TensorEncoder, "__call__", encoded)
    monkeypatch.setattr(TensorBank, "distances", searched)
    again = [Frame(f.image, f.luma, f.timestamp + 0.01, f.index) for f in frames]
    found = together(methods, again)
    assert sum(bool(seen.regions) for seen in busy) > 1 and len(counts["encoder"]) == 2
    assert sum(counts["encoder"]) == sum(len(seen.regions) for seen in found)
    assert len(counts["banks"]) - 1 == len(methods[0].bank_kinds())


def test_cameras_of_a_session_hold_a_bundles_banks_once(tiny_bundle: Path, tmp_path: Path) -> None:
    one, other = cameras(tiny_bundle, 2)
    assert one._banks is other._banks  # type: ignore[attr-defined]
    assert opened(tiny_bundle, Torch)._banks is not one._banks  # type: ignore[attr-defined]
    backend = Sessions(lambda kind, why: None).backend(Inference("torch"))
    second = altered(tiny_bundle, tmp_path / "second.evb", serial=2)
    first, last = opened(tiny_bundle, backend), opened(second, backend)
    assert first._banks is not last._banks  # type: ignore[attr-defined]


def test_banks_are_given_back_with_their_last_camera(tiny_bundle: Path) -> None:
    gc.collect()
    before = len(search._opened)
    session = Torch(read_bundle(tiny_bundle).model("encoder"))
    banks = search.open_banks(read_bundle(tiny_bundle), session)
    assert search.open_banks(read_bundle(tiny_bundle), session) is banks and sum(b.nbytes for b in banks.values()) > 1000
    del banks
    gc.collect()
    assert not search._opened[session]
    del session
    gc.collect()
    assert len(search._opened) == before


def test_cameras_of_other_bundles_share_the_encoder_only(tiny_bundle: Path, tmp_path: Path) -> None:
    second = altered(tiny_bundle, tmp_path / "second.evb", serial=2)
    backend = Sessions(lambda kind, why: None).backend(Inference("torch"))
    methods = [opened(tiny_bundle, backend), opened(second, backend)]
    alone = [opened(tiny_bundle, OnHost), opened(second, OnHost)]
    for frames in zip(footage(0), footage(1), strict=True):
        for seen, frame, other in zip(together(methods, list(frames)), frames, alone, strict=True):
            check_observations(other.observe(frame), seen)


def test_a_camera_that_fails_leaves_the_others_alone(tiny_bundle: Path) -> None:
    methods = cameras(tiny_bundle, 3)
    wrong = tiny.clip_frames(1, size=(200, 120))[0]
    for frames in zip(footage(0), footage(1), strict=True):
        found = run_together([m.steps(f) for m, f in zip(methods, [*frames, wrong], strict=True)])
        assert isinstance(found[2], Exception) and not isinstance(found[0], Exception)
        assert not isinstance(found[1], Exception)


def test_a_device_that_fails_costs_all_that_were_on_it(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = cameras(tiny_bundle, 2)
    together(methods, [footage(0)[0], footage(1)[0]])

    def lost(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: unspecified launch failure")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "cat", lost)
        found = run_together([m.steps(footage(i)[1]) for i, m in enumerate(methods)])
    assert [str(error) for error in found] == ["backend torch failed: CUDA error: unspecified launch failure"] * 2
    assert all(isinstance(error, BackendError) for error in found)


def test_time_is_shared_by_pictures_and_queries(tiny_bundle: Path) -> None:
    methods = cameras(tiny_bundle, 2)
    still = tiny.still_frames(footage(0)[0].image, N_FRAMES)
    for frames in zip(footage(0), still, strict=True):
        found = together(methods, list(frames))
    assert found[0].regions and found[0].stage_ms["encoder"] > 0 and found[0].stage_ms["search"] > 0
    assert not found[1].regions and "encoder" not in found[1].stage_ms

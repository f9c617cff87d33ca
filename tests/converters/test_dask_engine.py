"""A build on a Dask cluster of two workers, one of them killed on the way: the same bytes as on one machine."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from edge_vad.converters import dask_engine, normal_footage
from edge_vad.converters.build import build
from edge_vad.converters.dask_engine import DaskEngine
from edge_vad.converters.engine import open_engine
from edge_vad.converters.settings import BuildSettings

from edge_vad.errors import EngineError
from edge_vad.footage import find_clips

distributed = pytest.importorskip("distributed", reason="the package distributed (extra dask) is not installed")
Cli = Callable[..., tiny.Outcome]
N_CLIPS = 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as made:
        yield made


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for number in range(N_CLIPS):
        tiny.write_clip(folder / f"{number:02d}", 24, seed=number)
    return folder


@pytest.fixture(scope="module")
def settings(tiny_encoder: Path) -> BuildSettings:
    return BuildSettings(encoder_name=str(tiny_encoder), taps=("fine", "coarse"), precision="fp32", ratio=0.05)


def address(cluster: Any) -> str:
    return str(cluster.scheduler_address).replace("tcp://", "dask://")


def kill_one_at_work(cluster: Any, work: Path, killed: list[str]) -> None:
    """As soon as a clip is finished and while others are not."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not killed:
        busy = [worker for worker in cluster.scheduler.workers.copy().values() if worker.processing]
        if busy and list(work.glob("*.json")):
            nanny = next(n for n in cluster.workers.values() if n.worker_address == busy[0].address)
            os.kill(nanny.pid, signal.SIGKILL)
            killed.append(busy[0].address)
        time.sleep(0.002)


def test_a_worker_that_is_killed_on_the_way_changes_no_byte(
    cluster: Any, clips: Path, settings: BuildSettings, tmp_path: Path
) -> None:
    build(find_clips([clips]), tmp_path / "site.evb", settings)
    expected = (tmp_path / "site.evb").read_bytes()
    killed: list[str] = []
    killer = threading.Thread(target=kill_one_at_work, args=(cluster, tmp_path / "site.evb.work", killed))
    engine = open_engine(address(cluster))
    killer.start()
    try:
        build(find_clips([clips]), tmp_path / "site.evb", settings, engine=engine)
    finally:
        killer.join()
        engine.close()
    assert killed and killed[0] not in cluster.scheduler.workers
    assert (tmp_path / "site.evb").read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["site.evb"]
    left = [path for worker in cluster.workers.values() for path in Path(worker.local_directory).rglob("edge-vad-*")]
    assert left == [], "workers keep nothing"


def test_a_clip_that_a_worker_cannot_read_is_named(
    cluster: Any, clips: Path, settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    monkeypatch.setattr(normal_footage, "MEASURE_FRAMES", 80)
    shutil.copytree(clips, tmp_path / "footage")
    picture = tmp_path / "footage" / "03" / "022.png"
    picture.write_bytes(picture.read_bytes()[:100])
    arguments = tiny.build_arguments(tmp_path / "footage", tmp_path / "site.evb", Path(settings.encoder_name))
    said = cli(*arguments, "--engine", address(cluster))
    assert said.code == 1 and f"{picture}: not a readable picture" in said.err


def test_workers_with_other_code_are_refused(
    cluster: Any, clips: Path, settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_engine, "code_version", lambda: "another")
    engine = open_engine(address(cluster))
    try:
        with pytest.raises(EngineError, match="another version of edge-vad.*install the same"):
            build(find_clips([clips]), tmp_path / "site.evb", settings, engine=engine)
    finally:
        engine.close()


def test_a_cluster_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_engine, "CONNECT_S", 0.5)
    with pytest.raises(EngineError, match=r"dask://127\.0\.0\.1:9: no Dask scheduler answers there"):
        open_engine("dask://127.0.0.1:9")
    with pytest.raises(EngineError, match="name the scheduler"):
        open_engine("dask://")
    with pytest.raises(EngineError, match="leave --jobs out"):
        open_engine("dask://127.0.0.1:9", jobs=2)


def test_a_cluster_without_workers_is_not_waited_for_for_ever(
    clips: Path, settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_engine, "PATIENCE_S", 0.5)
    with distributed.LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as empty:
        engine = DaskEngine(str(empty.scheduler_address).removeprefix("tcp://"))
        try:
            with pytest.raises(EngineError, match=r"no worker for 0\.5 s; start some: dask worker"):
                build(find_clips([clips]), tmp_path / "site.evb", settings, engine=engine)
        finally:
            engine.close()

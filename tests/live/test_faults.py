"""The table of faults, row by row, through a whole unit: each ends in records and counters, and scoring goes on after it."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from altered import altered
from live_parts.backends import Shaky
from live_parts.dead_sink import DeadSink
from live_stage import FOREVER, Stage, Watched, device_yaml, importable, plan, run_command, source, wait_for, watched
from tiny import Outcome, write_clip

from edge_vad.backends.onnxruntime import OnnxRuntime
from edge_vad.bundle import read_bundle
from edge_vad.device import CameraSettings, MediaSettings
from edge_vad.errors import BackendError, SourceError
from edge_vad.eventlog import EventLog, read
from edge_vad.store import Store

GATE, DOOR = source("gate"), source("door")
SHAKY = "inference.backend=live_parts.backends:Shaky"


@pytest.fixture(autouse=True)
def steady_backend() -> Iterator[None]:
    Shaky.script, Shaky.always, Shaky.n_made = [], "", 0
    yield
    Shaky.script, Shaky.always = [], ""


@pytest.fixture
def gate(stage: Stage, tiny_bundle: Path, tmp_path: Path) -> Iterator[Watched]:
    """A unit with one staged camera that is scored already."""
    with watched(tmp_path, {"gate": CameraSettings(GATE, str(tiny_bundle))}) as unit:
        unit.until_scored()
        yield unit


@pytest.fixture
def two(stage: Stage, tiny_bundle: Path) -> dict[str, CameraSettings]:
    """Two staged cameras with one bundle."""
    return {"gate": CameraSettings(GATE, str(tiny_bundle)), "door": CameraSettings(DOOR, str(tiny_bundle))}


# Every way in which a real camera can die, all at once, beside one that is well

DEATHS: dict[str, tuple[list[Any], str]] = {
    "ended": ([], "the stream ended"),
    "unplugged": (["raise", "No such device"], "No such device"),
    "bug": (["bug", "list index out of range"], "the capture process ended (exit code 1)"),
    "exited": (["exit", 7], "the capture process ended (exit code 7)"),
    "crashed": (["signal", signal.SIGSEGV], "the capture process ended (SIGSEGV)"),
    "aborted": (["signal", signal.SIGABRT], "the capture process ended (SIGABRT)"),
    "killed": (["signal", signal.SIGKILL], "the capture process ended (SIGKILL)"),
    "hangs": (["hang", 600], "no frame for"),
    "stopped": (["signal", signal.SIGSTOP], "no frame for"),
    "floats": (["dtype", 0], "a frame of the shape"),
    "grey": (["shape", 0], "a frame of the shape"),
}


def test_a_camera_that_dies_in_any_way_comes_back_and_stops_no_other(
    tmp_path: Path, tiny_bundle: Path, street_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_vad.feed.STALL_S", 4.0)
    monkeypatch.setattr("edge_vad.feed.STALL_PERIODS", 0)
    monkeypatch.setattr("edge_vad.feed.FIRST_RETRY_S", 0.05)
    cameras = {"well": plan(tmp_path / "well", FOREVER, fps=5, street=street_file)}
    for name, (step, _) in DEATHS.items():
        steps = [["street", 3], *([step] if step else [])]
        cameras[name] = plan(tmp_path / name, steps, FOREVER, fps=5, street=street_file)
    cameras["absent"] = plan(tmp_path / "absent", [["refuse", 0]], [["refuse", 0]], FOREVER, fps=5, street=street_file)
    settings = {name: CameraSettings(where, str(tiny_bundle)) for name, where in cameras.items()}
    with watched(tmp_path, settings) as unit:

        def all_are_back() -> bool:
            kinds = unit.kinds()
            return kinds.count("camera.back") == len(cameras) - 1

        unit.until(all_are_back, "every camera comes back", 60)
        unit.until_scored(2)
        for name, (_, reason) in {**DEATHS, "absent": (None, "there is no camera at the moment")}.items():
            lost, back = unit.records(name, "camera")
            assert (lost["kind"], back["kind"]) == ("lost", "back"), name
            assert lost["reason"].startswith(reason), name
            assert 0 < back["gap_s"] < 40, name
            assert unit.status(name)["lost"] == 1, name
            assert unit.status(name)["state"] == "running", name
        assert unit.kinds("well") == []
        assert unit.scored("well") > 5
        for name in cameras:
            status = unit.status(name)
            assert status["captured"] >= status["scored"] + status["dropped"], name


# Faults of one staged camera


def test_an_unplugged_camera_is_told_once_and_once_again_when_it_is_back(gate: Watched, stage: Stage) -> None:
    stage.fail(GATE, "No such device", times=6)
    gate.until(lambda: "camera.back" in gate.kinds(), "it comes back")
    gate.until_scored()
    assert gate.kinds("gate") == ["camera.lost", "camera.back"]
    assert len(stage.opened) == 7
    assert gate.status("gate")["lost"] == 1


def test_a_running_event_ends_where_the_camera_is_lost(gate: Watched, stage: Stage) -> None:
    """After the gap nothing before it holds: the event is closed, the next one is another."""
    stage.show(GATE, "strange", 30)
    stage.fail(GATE, "unplugged")
    stage.show(GATE, "strange", 30)
    gate.until(lambda: gate.kinds("gate").count("anomaly.end") == 2, "both events end")
    told = [kind for kind in gate.kinds("gate") if kind != "anomaly.update"]
    assert told == ["anomaly.start", "camera.lost", "anomaly.end", "camera.back", "anomaly.start", "anomaly.end"]
    starts = [r["id"] for r in gate.records("gate", "anomaly") if r["kind"] == "start"]
    assert len(set(starts)) == 2


@pytest.mark.parametrize("kind", ["black", "covered", "frozen"])
def test_a_picture_that_shows_nothing_is_told_scored_and_flagged(gate: Watched, stage: Stage, kind: str) -> None:
    stage.show(GATE, "street", 30)
    stage.show(GATE, kind, 80)
    gate.until(lambda: f"view.{kind}" in gate.kinds(), "it is told")
    assert gate.status("gate")["view"] == kind
    scored = gate.scored("gate")
    gate.until(lambda: stage.left(GATE) == 0, "all is shown")
    assert gate.scored("gate") > scored, "scoring goes on"
    gate.until(lambda: "view.clear" in gate.kinds(), "its end is told")
    assert gate.kinds("gate", "view") == [f"view.{kind}", "view.clear"]
    assert gate.status("gate")["view"] == "clear"


def test_an_event_while_the_picture_is_covered_carries_the_flag(
    gate: Watched, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_vad.view.ViewMonitor._look", lambda *_: "covered")
    gate.until(lambda: "view.covered" in gate.kinds(), "it is told")
    stage.show(GATE, "strange", 30)
    gate.until(lambda: "anomaly.start" in gate.kinds(), "the event")
    assert [r["view"] for r in gate.records("gate", "anomaly") if r["kind"] == "start"] == ["covered"]


def test_another_picture_size_is_never_stretched_and_scored_again_when_it_is_back(gate: Watched, stage: Stage) -> None:
    scored = gate.scored("gate")
    stage.show(GATE, "street", 20, size=(320, 240))
    gate.until(lambda: stage.left(GATE) == 0, "all is shown")
    assert gate.scored("gate") - scored <= 3, "nothing of the other size was scored"
    assert gate.status("gate")["skipped"] == 20
    gate.until_scored()
    resized = gate.records("gate", "camera")
    assert [(r["kind"], r.get("size"), r.get("wanted"), r.get("scored")) for r in resized] == [
        ("resized", [320, 240], [180, 120], False),
        ("lost", None, None, None),
        ("back", None, None, None),
        ("resized", [180, 120], None, True),
    ]
    assert len(stage.opened) == 2, "it was asked for the size once more, and only once"
    assert gate.status("gate")["reason"] == ""


def test_a_camera_that_stays_at_another_size_says_so(gate: Watched, stage: Stage) -> None:
    stage.show(GATE, "street", 10, size=(320, 240))
    gate.until(lambda: stage.left(GATE) < 5, "it is shown")
    assert gate.status("gate")["reason"] == "pictures of 320x240, not the bundle's size"


def test_frames_that_come_faster_than_they_are_scored_are_counted_and_the_load_is_told(
    gate: Watched, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_vad.channel.LOAD_S", 0.3)
    before = gate.status("gate")
    stage.show(GATE, "street", 400, step=4)
    gate.until(lambda: "load.degraded" in gate.kinds(), "overload is told")
    assert gate.status("gate")["degraded"]
    shown = 400 - stage.left(GATE)
    after = gate.status("gate")
    assert after["captured"] - before["captured"] == 4 * shown
    assert after["dropped"] - before["dropped"] == 3 * shown
    while stage.left(GATE):
        stage.next(GATE, 0)
    gate.until(lambda: "load.normal" in gate.kinds(), "relief is told")
    assert gate.kinds("gate", "load") == ["load.degraded", "load.normal"]
    assert not gate.status("gate")["degraded"]


def test_a_slow_unit_takes_the_newest_frame_of_a_real_camera(
    tmp_path: Path, tiny_bundle: Path, street_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    camera = CameraSettings(plan(tmp_path / "plan", FOREVER, fps=60, street=street_file), str(tiny_bundle))
    with watched(tmp_path, {"gate": camera}) as unit:
        channel = unit.unit.channels[0]
        late: list[float] = []
        slowed = channel.detector.steps

        def slow(frame: Any) -> Any:
            late.append(time.monotonic() - frame.timestamp)
            time.sleep(0.1)
            return slowed(frame)

        monkeypatch.setattr(channel.detector, "steps", slow)
        unit.until(lambda: len(late) > 15, "frames are taken")
        counters = channel.feed.counters
        assert counters.taken == len(late) and counters.captured == counters.taken + counters.dropped
        assert counters.dropped > 2 * counters.taken
        assert np.median(late[2:]) < 0.08, "the newest frame, not one that waited"


class SteppingClock(datetime):
    """A wall clock that jumps by years with every look at it."""

    steps = iter(range(10**6))

    @classmethod
    def now(cls, tz: Any = None) -> SteppingClock:
        jump = timedelta(days=(-9000, 400, -20, 9000)[next(cls.steps) % 4])
        return cls.fromtimestamp(1.7e9, timezone.utc) + jump


def test_a_wall_clock_that_steps_disturbs_no_order(gate: Watched, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_vad.record.datetime", SteppingClock)
    for _ in range(4):
        stage.show(GATE, "strange", 20)
        stage.fail(GATE, "unplugged")
    gate.until(lambda: gate.kinds().count("camera.back") == 4, "four losses")
    records = gate.records()
    assert [r["seq"] for r in records] == list(range(1, len(records) + 1))
    assert len({r["boot"] for r in records}) == 1
    monotonic = [r["monotonic_s"] for r in records]
    assert monotonic == sorted(monotonic)
    walls = [r["time"] for r in records]
    assert walls != sorted(walls), "the wall clock did step"
    assert gate.kinds("gate", "camera") == ["camera.lost", "camera.back"] * 4


# Disk


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_a_log_that_cannot_be_written_holds_up_nothing_and_loses_nothing(
    gate: Watched, stage: Stage, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as full:
        full.setattr(EventLog, "_write", fails)
        scored = gate.scored("gate")
        stage.fail(GATE, "unplugged")
        gate.until_scored()
        gate.until(lambda: gate.unit.status()["delivery"]["log"]["pending"] >= 3, "records wait")
        assert gate.kinds() == [] and gate.scored("gate") > scored
        assert os.strerror(number) in gate.unit.status()["delivery"]["log"]["last_error"]
    gate.until(lambda: "storage.writable" in gate.kinds(), "it is written again")
    assert sorted(gate.kinds()) == ["camera.back", "camera.lost", "storage.full", "storage.writable"]
    assert gate.kinds()[-1] == "storage.writable"
    assert [r["seq"] for r in gate.records()] == [1, 2, 3, 4]
    log = gate.unit.status()["delivery"]["log"]
    assert (log["pending"], log["lost"], log["last_error"]) == (0, 0, "")


def test_a_log_that_stays_full_loses_the_oldest_records_and_counts_them(
    gate: Watched, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_vad.delivery.RING", 5)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(EventLog, "_write", full)
        for _ in range(6):
            stage.fail(GATE, "unplugged")
            stage.show(GATE, "street", 2)
        gate.until(lambda: stage.left(GATE) == 0, "six losses")
        gate.until_scored()
        assert gate.unit.status()["delivery"]["log"]["lost"] >= 7
    gate.until(lambda: "storage.writable" in gate.kinds(), "it is written again")
    seqs = [r["seq"] for r in gate.records()]
    assert seqs == list(range(seqs[0], seqs[-1] + 1)) and seqs[0] > 7, "the newest are there, with their numbers"


def test_a_sink_on_a_full_disk_keeps_what_it_could_not_take(
    two: dict[str, CameraSettings], stage: Stage, tmp_path: Path
) -> None:
    with watched(tmp_path, two, sinks=("jsonl:/dev/full", f"jsonl:{tmp_path / 'good.jsonl'}")) as unit:
        stage.fail(GATE, "unplugged")
        unit.until(lambda: "camera.back" in unit.kinds("gate"), "it comes back")
        unit.until_scored()
        full, good = (s for name, s in unit.unit.status()["delivery"].items() if name.startswith("jsonl"))
        assert full["delivered"] == 0 and full["pending"] == 2 and "No space left" in full["last_error"]
        assert good["delivered"] == 2
        assert unit.kinds("gate") == ["camera.lost", "camera.back"], "the log has them"


@pytest.mark.parametrize("how", ["hang", "refuse"])
def test_a_dead_receiver_slows_nothing(two: dict[str, CameraSettings], stage: Stage, tmp_path: Path, how: str) -> None:
    DeadSink.released.clear()
    try:
        with watched(tmp_path, two, sinks=(f"live_parts.dead_sink:{how}",)) as unit:
            for _ in range(5):
                stage.fail(GATE, "unplugged")
                stage.show(GATE, "street", 3)
            unit.until(lambda: unit.kinds("gate").count("camera.back") == 5, "five losses", 10)
            rounds = []
            for _ in range(30):
                start = time.monotonic()
                unit.unit._round()
                rounds.append(time.monotonic() - start)
            assert np.median(rounds) < 0.2
            [dead] = [s for name, s in unit.unit.status()["delivery"].items() if "dead" in name]
            assert dead["pending"] == 10 and dead["delivered"] == 0
            start = time.monotonic()
        assert time.monotonic() - start < 5, "and the unit stops in time"
    finally:
        DeadSink.released.set()


# Backends: (what the backend does from now on, kinds of records, frames that may be lost)

BACKEND_FAULTS: dict[str, tuple[list[str], list[str], int]] = {
    "an error once": (["error"], ["retried"], 0),
    "an error twice": (["error"] * 2, ["retried", "rebuilt"], 0),
    "an error three times": (["error"] * 3, ["retried", "rebuilt", "rebuilt"], 1),
    "no number once": (["nan"], ["retried"], 0),
    "no number twice": (["nan"] * 2, ["retried", "rebuilt"], 0),
    "infinity once": (["inf"], ["retried"], 0),
    "infinities of both signs": (["infs"], ["retried"], 0),
    "infinity three times": (["inf"] * 3, ["retried", "rebuilt", "rebuilt"], 1),
}


@pytest.mark.parametrize("fault", BACKEND_FAULTS)
def test_a_backend_that_fails_is_tried_again_and_then_made_anew(
    two: dict[str, CameraSettings], tmp_path: Path, fault: str
) -> None:
    script, kinds, n_lost = BACKEND_FAULTS[fault]
    with watched(tmp_path, {"gate": two["gate"]}, SHAKY) as unit:
        unit.until_scored()
        Shaky.script = list(script)
        unit.until(lambda: not Shaky.script, "the fault happens")
        unit.until_scored()
        assert [r["kind"] for r in unit.records(None, "backend")] == kinds
        assert all(r["reason"] for r in unit.records(None, "backend"))
        assert unit.status("gate")["skipped"] == n_lost
        assert np.isfinite(unit.status("gate")["score"])
        assert unit.kinds(None, "camera") == []


@pytest.mark.parametrize("what", ["error", "nan"])
def test_the_next_allowed_backend_takes_over_from_one_that_always_fails(
    two: dict[str, CameraSettings], tmp_path: Path, what: str
) -> None:
    """Those that are not installed, or compute something else, are passed over."""
    fallback = "inference.fallback=['live_parts.backends:Missing', 'live_parts.backends:Wrong', onnxruntime]"
    with watched(tmp_path, two, SHAKY, fallback) as unit:
        unit.until_scored()
        before = {name: unit.status(name) for name in two}
        Shaky.always = what
        unit.until_scored(5)
        for name in two:
            [replaced] = [r for r in unit.records(name, "backend") if r["kind"] == "replaced"]
            assert replaced["backend"] == unit.status(name)["backend"] == "onnxruntime@cpu"
            assert unit.status(name)["skipped"] - before[name]["skipped"] <= 2
        assert unit.kinds(None, "camera") == []


def test_cameras_share_a_session_also_after_it_was_made_anew(two: dict[str, CameraSettings], tmp_path: Path) -> None:
    with watched(tmp_path, two, SHAKY) as unit:
        unit.until_scored()
        assert Shaky.n_made == 1, "one session for both"
        Shaky.script = ["error"] * 3
        unit.until(lambda: not Shaky.script, "the fault happens")
        unit.until_scored()
        sessions = {id(channel.detector._method._extractor._local._encoder._backend) for channel in unit.unit.channels}
        assert len(sessions) == 1, "memory has not doubled"
        assert Shaky.n_made == 3  # the rebuilt one failed too


def test_a_backend_whose_self_test_fails_at_the_start_is_not_used(two: dict[str, CameraSettings], tmp_path: Path) -> None:
    wrong = "inference.backend=live_parts.backends:Wrong"
    with watched(tmp_path, {"gate": two["gate"]}, wrong, "inference.fallback=[onnxruntime]") as unit:
        unit.until_scored()
        assert unit.kinds("gate") == ["backend.replaced"]
        assert unit.status("gate")["backend"] == "onnxruntime@cpu"


def test_a_device_that_is_not_there_is_replaced_where_the_profile_allows_it_and_an_error_else(
    two: dict[str, CameraSettings], tmp_path: Path
) -> None:
    """ONNX Runtime would run on the CPU without a word."""
    gate, absent = {"gate": two["gate"]}, "inference.device=cuda:99"
    with watched(tmp_path, gate, absent, "inference.fallback=[openvino@gpu:99, onnxruntime@cpu]") as unit:
        unit.until_scored()
        [replaced] = unit.records("gate", "backend")
        assert (replaced["kind"], replaced["backend"]) == ("replaced", "onnxruntime@cpu")
        assert "cuda" in replaced["reason"]
        assert unit.status("gate")["backend"] == "onnxruntime@cpu"
    with pytest.raises(BackendError, match="cuda"), watched(tmp_path / "again", gate, absent):
        pass


def test_a_backend_that_fails_on_one_device_is_replaced_by_itself_on_another(
    two: dict[str, CameraSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`gpu:0` is another name of the CPU here; the sessions of the two are not one."""
    made = OnnxRuntime.__init__

    def anywhere(self: OnnxRuntime, model: bytes, *, threads: int = 1, device: str = "cpu") -> None:
        made(self, model, threads=threads)
        self.device = device  # type: ignore[attr-defined]

    monkeypatch.setattr(OnnxRuntime, "__init__", anywhere)
    monkeypatch.setattr(OnnxRuntime, "devices", ("cpu", "gpu"))
    with watched(tmp_path, two, "inference.device=gpu:0", "inference.fallback=[onnxruntime@cpu]") as unit:
        unit.until_scored()
        assert unit.status("gate")["backend"] == "onnxruntime@gpu:0"
        run = OnnxRuntime.run

        def broken(self: OnnxRuntime, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            if self.device != "cpu":  # type: ignore[attr-defined]
                raise BackendError("the GPU fell off the bus")
            return run(self, inputs)

        monkeypatch.setattr(OnnxRuntime, "run", broken)
        unit.until_scored(5)
        for name in two:
            assert [r["backend"] for r in unit.records(name, "backend")] == ["onnxruntime@cpu"]
            assert unit.status(name)["backend"] == "onnxruntime@cpu"


def test_a_camera_without_any_backend_fails_alone_and_is_tried_again(
    two: dict[str, CameraSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_bundle: Path, tiny_encoder: Path
) -> None:
    """Two bundles with models of their own: the backend fails for one of them only."""
    monkeypatch.setattr("edge_vad.unit.REOPEN_S", 0.5)
    with watched(tmp_path, two, SHAKY) as unit:
        unit.until_scored()
        gate = unit.unit.channels[0]
        monkeypatch.setattr(gate.detector, "steps", lambda frame: _fails(SourceError("no backend can run the bundle")))
        unit.until(lambda: "camera.lost" in unit.kinds("gate"), "it is told")
        assert unit.status("gate")["state"] == "failed"
        assert unit.unit.status()["state"] == "failed"
        unit.until_scored(5, "door")
        unit.until(lambda: "camera.back" in unit.kinds("gate"), "it is tried again")
        unit.until_scored(5)
        assert unit.kinds("gate") == ["camera.lost", "camera.back"]
        assert unit.records("gate")[1]["gap_s"] >= 0.5
        assert unit.kinds("door") == []


def test_no_backend_left_is_told_and_tried_again_until_one_is_well(
    two: dict[str, CameraSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_vad.unit.REOPEN_S", 0.2)
    with watched(tmp_path, {"gate": two["gate"]}, SHAKY) as unit:
        unit.until_scored()
        Shaky.always = "error"
        unit.until(lambda: "camera.lost" in unit.kinds("gate"), "it is told")
        assert unit.kinds("gate") == ["backend.failed", "camera.lost"]
        made = Shaky.n_made
        unit.until(lambda: Shaky.n_made > made + 2, "it is tried again and again")
        assert unit.kinds("gate") == ["backend.failed", "camera.lost"], "and told once"
        Shaky.always = ""
        unit.until_scored(3)
        assert unit.kinds("gate")[-1] == "camera.back"


@pytest.mark.parametrize("where", ["steps", "bug"])
def test_an_error_inside_stops_one_camera_for_a_while_and_no_other(
    two: dict[str, CameraSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """steps: in the code of one camera. bug: a driver's own exception, which costs both, whose pictures it had."""
    monkeypatch.setattr("edge_vad.unit.REOPEN_S", 0.3)
    with watched(tmp_path, two, SHAKY) as unit:
        unit.until_scored()
        if where == "steps":
            monkeypatch.setattr(unit.unit.channels[0].detector, "steps", lambda frame: _fails(ZeroDivisionError("x")))
        else:
            Shaky.script = ["bug"]
        unit.until(lambda: "camera.back" in unit.kinds("gate"), "it is back")
        unit.until_scored(3)
        lost, back = unit.records("gate")
        assert lost["reason"].startswith("internal error: ") and back["kind"] == "back"
        assert unit.kinds("door") == ([] if where == "steps" else ["camera.lost", "camera.back"])


def _fails(error: Exception) -> Iterator[Any]:
    """Work that fails at once."""
    raise error
    yield


# Stored footage beside a live camera


def broken_clip(folder: Path) -> Path:
    """Twelve pictures, the eighth of which is cut off."""
    write_clip(folder, 12)
    path = sorted(folder.iterdir())[7]
    path.write_bytes(path.read_bytes()[:500])
    return folder


def test_footage_that_cannot_be_read_in_the_middle_stops_no_other_camera(
    two: dict[str, CameraSettings], tmp_path: Path, tiny_bundle: Path
) -> None:
    cameras = {**two, "clip": CameraSettings(str(broken_clip(tmp_path / "clip")), str(tiny_bundle), fps=10)}
    with watched(tmp_path, cameras) as unit:
        unit.until(lambda: "camera.lost" in unit.kinds("clip"), "it is told")
        unit.until_scored(5, "gate", "door")
        [lost] = unit.records("clip")
        assert "007.png: not a readable picture" in lost["reason"]
        assert unit.status("clip")["state"] == "failed"


def test_footage_that_cannot_be_read_is_the_one_error_where_it_is_alone(
    cli: Callable[..., Outcome], tmp_path: Path, tiny_bundle: Path
) -> None:
    said = cli("run", "--bundle", tiny_bundle, "--source", broken_clip(tmp_path / "clip"), "--sink", "jsonl:/dev/null")
    assert said.code == 1
    assert "007.png: not a readable picture" in said.err.splitlines()[-1]


def test_footage_of_another_size_is_an_error_and_not_stretched(
    cli: Callable[..., Outcome], tmp_path: Path, tiny_bundle: Path
) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((240, 320, 3), np.uint8))
    said = cli("run", "--bundle", tiny_bundle, "--source", tmp_path, "--sink", "jsonl:/dev/null")
    assert said.code == 1 and "frames of 320x240 pixels, the bundle was built for 180x120" in said.err


# Bundles on trial


def on_trial(folder: Path, *bundles: Path) -> Store:
    """A store with these bundles, the last one activated and not yet confirmed."""
    store = Store(folder)
    for number, path in enumerate(bundles):
        store.activate(store.install(path))
        if number < len(bundles) - 1:
            store.confirm()
    return store


def test_a_bundle_on_trial_is_confirmed_once_for_all_cameras_of_the_unit(
    stage: Stage, tiny_bundle: Path, tmp_path: Path
) -> None:
    """One start is one attempt: four cameras must not use up three attempts."""
    store = on_trial(tmp_path / "store", tiny_bundle, altered(tiny_bundle, tmp_path / "second.evb", serial=2))
    cameras = {name: CameraSettings(source(name), store=str(store.folder)) for name in ("a", "b", "c", "d")}
    with watched(tmp_path, cameras, "store.confirm_s=1") as unit:
        assert store.attempts_made == 1
        assert {unit.status(name)["bundle"]["serial"] for name in cameras} == {2}
        assert unit.status("a")["on_trial"]
        unit.until(lambda: store.attempts_made is None, "it is confirmed")
        unit.until_scored(10)
        assert unit.kinds(None, "bundle") == ["bundle.confirmed"]
        assert not any(unit.status(name)["on_trial"] for name in cameras)
    with watched(tmp_path, cameras, "store.confirm_s=0.5") as unit:
        unit.until_scored(10)
        assert unit.kinds(None, "bundle") == ["bundle.confirmed"], "what is confirmed is not confirmed again"


def test_a_bundle_that_cannot_run_is_rolled_back_and_the_previous_one_runs(
    stage: Stage, tiny_bundle: Path, tmp_path: Path
) -> None:
    scores = read_bundle(tiny_bundle).golden()["scores"]
    failing = altered(tiny_bundle, tmp_path / "f.evb", golden={"scores": scores + np.float32(1)}, serial=2)
    store = on_trial(tmp_path / "store", tiny_bundle, failing)
    cameras = {name: CameraSettings(source(name), store=str(store.folder)) for name in ("a", "b")}
    with watched(tmp_path, cameras) as unit:
        unit.until_scored()
        [told] = unit.records(None, "bundle")
        assert told["kind"] == "rolled_back" and told["reason"]
        assert told["id"] == store.current == read_bundle(tiny_bundle).id
        assert told["from"] == read_bundle(failing).id


def test_a_trial_that_cannot_be_confirmed_on_a_read_only_medium_goes_on(
    stage: Stage, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_vad.errors import OutputError

    store = on_trial(tmp_path / "store", tiny_bundle)

    def read_only(*_: object) -> None:
        raise OutputError("read-only file system")

    monkeypatch.setattr(Store, "confirm", read_only)
    with watched(tmp_path, {"gate": CameraSettings(GATE, store=str(store.folder))}, "store.confirm_s=0.5") as unit:
        unit.until_scored(20)
        assert unit.kinds() == []


# The end of the process


class Process:
    """edge-vad run --config in a process of its own."""

    def __init__(self, folder: Path, config: Path, **more: Any) -> None:
        self.data = folder / "data"
        self.errors = folder / "stderr"
        with self.errors.open("ab") as errors:
            self.popen = subprocess.Popen(run_command(config), env=importable(), stderr=errors, cwd="/", **more)

    def kinds(self) -> list[str]:
        return [f"{r.type}.{r.kind}" for _, r in read(self.data / "events")]

    def wait_for(self, kind: str, n: int = 1) -> None:
        def there() -> bool:
            assert self.popen.poll() is None, self.errors.read_text()
            return self.kinds().count(kind) >= n

        wait_for(there, f"{kind} is recorded", 30)

    def end(self) -> tuple[int, float]:
        """Exit code and the seconds that it took."""
        start = time.monotonic()
        return self.popen.wait(15), time.monotonic() - start


@pytest.fixture
def start(tmp_path: Path, tiny_bundle: Path, street_file: Path) -> Iterator[Callable[..., Process]]:
    """Starts a unit that watches one scripted camera; what is left of it in the end is killed."""
    started: list[Process] = []

    def start(steps: list[Any], *more: str, sink: str = "jsonl:/dev/null", **popen: Any) -> Process:
        where = plan(tmp_path / "plan", steps, fps=15, street=street_file)
        config = device_yaml(tmp_path, {"gate": where}, tiny_bundle, *more, sink=sink)
        started.append(Process(tmp_path, config, **popen))
        return started[-1]

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.popen.kill()
        process.popen.wait()
        if process.popen.stdout:
            process.popen.stdout.close()


STRANGE_FOR_EVER = [["street", 30], ["strange", -1]]


def test_sigterm_in_the_middle_of_an_event_writes_its_end_and_exits_with_0_in_time(start: Callable[..., Process]) -> None:
    process = start(STRANGE_FOR_EVER)
    process.wait_for("anomaly.start")
    process.popen.terminate()
    code, took_s = process.end()
    assert code == 0 and took_s < 5
    told = [kind for kind in process.kinds() if kind != "anomaly.update"]
    assert told == ["unit.started", "anomaly.start", "anomaly.end", "unit.stopped"]
    *_, (_, stopped) = read(process.data / "events")
    assert stopped.data["reason"] == "SIGTERM"
    assert "Traceback" not in process.errors.read_text()
    assert not list((process.data.parent / "run").glob("*.json")), "the status file is gone"


def test_sigint_exits_with_130_and_a_second_one_at_once(start: Callable[..., Process]) -> None:
    process = start(FOREVER)
    process.wait_for("unit.started")
    process.popen.send_signal(signal.SIGINT)
    with suppress(ProcessLookupError):
        process.popen.send_signal(signal.SIGINT)
    code, took_s = process.end()
    assert code == 130 and took_s < 5
    assert "Traceback" not in process.errors.read_text()


def test_kill_9_loses_no_acknowledged_record_and_a_torn_log_is_repaired(start: Callable[..., Process]) -> None:
    process = start([["street", 30], ["strange", 15], ["raise", "unplugged"]])
    process.wait_for("camera.lost")
    process.popen.kill()
    process.end()
    before = [(r.seq, r.type, r.kind) for _, r in read(process.data / "events")]
    newest = sorted((process.data / "events").glob("*.jsonl"))[-1]
    with newest.open("ab") as log:
        log.write(b'{"camera":"gate","kind":"sta')  # what a power cut leaves
    again = start(FOREVER)
    again.wait_for("unit.started", 2)
    again.popen.terminate()
    assert again.end()[0] == 0
    after = [(r.seq, r.type, r.kind) for _, r in read(process.data / "events")]
    assert after[: len(before)] == before, "nothing acknowledged is lost"
    assert [seq for seq, *_ in after] == list(range(1, len(after) + 1)), "numbers go on"
    assert b"\n" in newest.read_bytes()[-1:]


def test_a_reader_of_standard_output_that_goes_away_ends_the_unit_in_order(start: Callable[..., Process]) -> None:
    process = start([["street", 30], ["strange", 20], ["raise", "unplugged"]], sink="jsonl:-", stdout=subprocess.PIPE)
    assert process.popen.stdout
    first = json.loads(process.popen.stdout.readline())
    assert (first["type"], first["kind"]) == ("unit", "started")
    process.popen.stdout.close()
    code, _ = process.popen.wait(30), None
    assert code == 0
    assert "Traceback" not in process.errors.read_text()
    told = process.kinds()
    assert told[-1] == "unit.stopped", "the log has the end"
    assert told.count("anomaly.start") == told.count("anomaly.end")


def test_a_data_folder_that_cannot_be_made_is_one_clear_error(
    tmp_path: Path, tiny_bundle: Path, cli: Callable[..., Outcome]
) -> None:
    (tmp_path / "data").write_text("a file")
    said = cli("run", "--config", device_yaml(tmp_path, {"gate": "synthetic:seconds=1"}, tiny_bundle))
    assert said.code == 1 and len(said.err.strip().splitlines()) == 1
    assert "the event log cannot be opened" in said.err


def test_a_second_unit_on_the_same_data_is_refused(
    gate: Watched, tmp_path: Path, tiny_bundle: Path, cli: Callable[..., Outcome]
) -> None:
    said = cli("run", "--config", device_yaml(tmp_path, {"gate": "synthetic:seconds=1"}, tiny_bundle))
    assert said.code == 1 and "another process is writing it" in said.err
    gate.until_scored()


def test_a_status_that_cannot_be_written_stops_nothing(gate: Watched, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "run")
    gate.until_scored(20)


def test_a_folder_of_pictures_that_cannot_be_made_costs_the_pictures_and_nothing_else(
    stage: Stage, tiny_bundle: Path, tmp_path: Path
) -> None:
    pytest.importorskip("edge_vad.media")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "media").write_text("a file")
    pictures = MediaSettings(snapshots=True, clips=True, pre_s=0.5, post_s=0.5)
    with watched(tmp_path, {"gate": CameraSettings(GATE, str(tiny_bundle))}, media=pictures) as unit:
        unit.until_scored()
        stage.show(GATE, "strange", 30)
        unit.until(lambda: "anomaly.end" in unit.kinds("gate"), "the event comes to its end")
        unit.until_scored()
        assert unit.kinds("gate", "camera") == []

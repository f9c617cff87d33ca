"""edge-vad doctor: each check finds what it is there for, on fake boards and with faults that are made here."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boards
import pytest
from tiny import Outcome

from edge_vad import health
from edge_vad.commands import doctor
from edge_vad.device import CameraSettings
from edge_vad.health import Check, User
from edge_vad.probe import try_backend, try_camera
from edge_vad.profile import load_profile
from edge_vad.status import write_status

Cli = Callable[..., Outcome]
SOURCE = "synthetic:size=180x120,fps=10"

SOMEBODY = User("somebody", 12345, frozenset())


def states(checks: list[Check]) -> dict[str, str]:
    return {check.what: check.state for check in checks}


# The board


def test_a_healthy_raspberry_pi(tmp_path: Path) -> None:
    checks = list(health.board(boards.raspberry_pi_5(tmp_path)))
    assert {check.state for check in checks} == {"ok"}
    assert [check.what for check in checks] == ["system", "memory", "temperature", "throttling", "clock speed"]
    assert "Raspberry Pi 5 Model B Rev 1.0" in checks[0].text


def test_a_healthy_jetson_and_pc(tmp_path: Path) -> None:
    for make in (boards.jetson, boards.desktop):
        assert {check.state for check in health.board(make(tmp_path / make.__name__))} == {"ok"}


@pytest.mark.parametrize(
    ("made", "what", "state", "words"),
    [
        ({"millidegrees": 81000}, "temperature", "warning", "heat sink"),
        ({"millidegrees": 92000}, "temperature", "bad", "heat sink"),
        ({"throttled": "1"}, "throttling", "bad", "power supply"),
        ({"throttled": "50000"}, "throttling", "warning", "power supply"),
        ({"throttled": "40004"}, "throttling", "bad", "heat sink"),
        ({"governor": "powersave"}, "clock speed", "warning", "ondemand"),
    ],
)
def test_a_board_that_suffers(made: dict[str, Any], what: str, state: str, words: str, tmp_path: Path) -> None:
    [check] = [check for check in health.board(boards.raspberry_pi_5(tmp_path, **made)) if check.what == what]
    assert check.state == state and words in check.advice


def test_a_32_bit_user_land(tmp_path: Path) -> None:
    check = health.user_land(boards.raspberry_pi_5(tmp_path), bits=32, machine="aarch64")
    assert check.state == "bad" and "64-bit" in check.advice


@pytest.mark.parametrize(("kilobytes", "state"), [(6_000_000, "ok"), (200_000, "warning"), (60_000, "bad")])
def test_memory(kilobytes: int, state: str, tmp_path: Path) -> None:
    boards.write(tmp_path, {"proc/meminfo": f"MemTotal: 8000000 kB\nMemAvailable: {kilobytes} kB\n"})
    assert health.memory(tmp_path).state == state


def test_the_wall_clock(tmp_path: Path) -> None:
    now = time.mktime((2026, 11, 22, 10, 0, 0, 0, 0, 0))
    assert health.wall_clock(now, True, tmp_path).state == "ok"
    check = health.wall_clock(now, False, tmp_path)
    assert check.state == "warning" and "battery" in check.text and "set-ntp" in check.advice
    assert "battery" not in health.wall_clock(now, False, boards.raspberry_pi_5(tmp_path)).text
    assert health.wall_clock(100.0, True, tmp_path).state == "bad"
    assert health.wall_clock().state in ("ok", "warning")  # this machine's


# Disk


def test_a_disk_with_room(tmp_path: Path) -> None:
    check = health.disk(tmp_path / "not" / "there" / "yet", 1, "data folder")
    assert (check.state, check.what) == ("ok", "data folder") and "ms" in check.text
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room(tmp_path: Path) -> None:
    assert health.disk(tmp_path, 10**9).state == "warning"


@pytest.mark.parametrize(("number", "words"), [(errno.EROFS, "read-only"), (errno.EACCES, "chown")])
def test_a_disk_that_cannot_be_written(number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.open", refuse)
    check = health.disk(tmp_path, 1)
    monkeypatch.undo()
    assert check.state == "bad" and words in check.advice and os.strerror(number) in check.text


def test_a_disk_that_is_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fdatasync", lambda _: time.sleep(0.21))
    check = health.disk(tmp_path, 1)
    assert check.state == "warning" and "faster medium" in check.advice


# Permissions


def nodes(root: Path, mode: int) -> Path:
    boards.write(root, dict.fromkeys(("dev/video0", "dev/video1", "dev/dma_heap/system", "dev/gpiochip0"), ""))
    for path in root.rglob("*"):
        if path.is_file():
            path.chmod(mode)
    return root


def test_device_files_of_a_group(tmp_path: Path) -> None:
    root = nodes(tmp_path, 0o660)
    group = (root / "dev/video0").stat().st_gid
    member = User("pi", 12345, frozenset({group}))
    assert states(list(health.permissions(("video", "gpio", "render"), member, root))) == {
        "video devices": "ok",
        "gpio devices": "ok",
    }
    [video, gpio] = health.permissions(("video", "gpio"), SOMEBODY, root)
    assert (video.state, gpio.state) == ("bad", "bad")
    assert "/dev/dma_heap/system, /dev/video0, /dev/video1" in video.text and "usermod" in video.advice
    assert next(health.permissions(("video",), SOMEBODY, nodes(root, 0o666))).state == "ok"
    assert next(health.permissions(("video",), User("root", 0, frozenset()), nodes(root, 0))).state == "ok"


def test_the_owner_is_asked_first(tmp_path: Path) -> None:
    root = nodes(tmp_path, 0o066)  # nobody but the owner is kept out
    owner = User("owner", (root / "dev/video0").stat().st_uid or 12345, frozenset())
    expected = "bad" if owner.uid != 12345 else "ok"
    assert next(health.permissions(("video",), owner, root)).state == expected


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody reaches; those of pytest are closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_what_a_user_may_read(open_folder: Path) -> None:
    secret = open_folder / "closed" / "device.yaml"
    boards.write(open_folder, {"closed/device.yaml": "x"})
    assert SOMEBODY.may_read(secret)
    link = open_folder / "link"
    link.symlink_to(secret)
    secret.parent.chmod(0o700)
    assert not SOMEBODY.may_read(secret) and not SOMEBODY.may_read(link)
    secret.parent.chmod(0o755)
    secret.chmod(0o600)
    assert not SOMEBODY.may_read(secret)
    assert not SOMEBODY.may_read(open_folder / "nowhere")
    assert User.me().may_read(secret)


# Packages and backends


def test_packages_that_are_missing_or_old(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    found = {"numpy": "2.0", "pyyaml": "6", "safetensors": "0.5", "onnxruntime": "1.2.0", "hnswlib": "0.8.0"}

    def version(name: str) -> str:
        try:
            return found[name]
        except KeyError:
            raise metadata.PackageNotFoundError(name) from None

    monkeypatch.setattr("importlib.metadata.version", version)
    monkeypatch.setattr("edge_vad.commands.doctor.find_spec", lambda _: None)
    checks = list(
        doctor.packages(load_profile("desktop_cpu", ["trust.signature=required", "inference.fallback=[openvino]"]))
    )
    lines = {check.text.split()[0]: check for check in checks[1:]}
    assert lines["onnxruntime"].state == "bad" and "older than 1.18" in lines["onnxruntime"].text
    assert lines["openvino"].state == "bad" and lines["openvino"].advice == "pip install 'openvino>=2024.4'"
    assert lines["cryptography"].state == "bad" and "pip install 'cryptography" in lines["cryptography"].advice
    assert lines["opencv-python-headless"].state == "warning"  # no camera needs it so far
    assert lines["hnswlib"].state == "ok"


def test_inner_loops_that_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_vad.kernels.LIBRARY", None)
    check = doctor.inner_loops()
    assert check.state == "warning" and "NumPy" in check.text and "apt-get install gcc" in check.advice
    monkeypatch.setattr("edge_vad.kernels.LIBRARY", object())
    assert doctor.inner_loops().state == "ok"


def test_a_package_that_another_one_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    real = metadata.version

    def version(name: str) -> str:
        if name == "onnxruntime":
            raise metadata.PackageNotFoundError(name)
        return "1.31.1" if name == "onnxruntime-gpu" else real(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    [check] = [c for c in doctor.packages(load_profile("desktop_cpu")) if "onnxruntime" in c.text]
    assert check.state == "ok" and "onnxruntime-gpu 1.31.1" in check.text


def test_backends_run_a_model() -> None:
    assert try_backend("onnxruntime", "cpu", 1) == {}
    assert "pip install onnxruntime-gpu" in try_backend("onnxruntime", "cuda:0", 1)["error"]
    assert "did you mean 'onnxruntime'" in try_backend("onnxruntme", "cpu", 1)["error"]
    [check] = doctor.backends(load_profile("desktop_cpu", ["inference.device=cuda:0"]))
    assert check.state == "bad" and "onnxruntime-gpu" in check.text


FAULTY = """
import os, sys, time
from edge_vad.backends.base import Backend

class Faulty(Backend):
    outputs = ("y",)
    def __init__(self, model, *, threads=1, device="cpu"):
        os.write(1, b"a library says something\\n")
        if device == "crash": os.abort()
        if device == "hang": time.sleep(60)
        if device == "quit": sys.exit("gone")
    def run(self, inputs):
        return {"y": inputs["x"] + 1}
"""


@pytest.mark.parametrize(
    ("device", "words"),
    [("cpu", "computes something else"), ("crash", "signal 6"), ("hang", "no answer within 8 s"), ("quit", "gone")],
)
def test_a_backend_that_is_broken(device: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    boards.write(tmp_path, {"broken_parts/backend.py": FAULTY})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("edge_vad.probe.BACKEND_S", 8.0)
    assert words in try_backend("broken_parts.backend", device, 1)["error"]


# Cameras


def test_a_live_camera_is_measured() -> None:
    found = try_camera(SOURCE)
    assert (found["live"], found["size"], found["fps"]) == (True, [180, 120], 10.0)
    assert found["measured_fps"] == pytest.approx(10, rel=0.1) and 20 <= found["n_frames"] <= 40


def test_footage_is_only_opened() -> None:
    found = try_camera("synthetic:size=180x120,seconds=2")
    assert found == {"live": False, "size": [180, 120], "fps": 10.0, "measured_fps": None, "n_frames": 20}


def test_a_camera_that_is_not_there() -> None:
    found = try_camera("/dev/video97")
    assert list(found) == ["error"] and "/dev/video97" in found["error"]


@pytest.mark.parametrize(
    ("found", "fps", "state", "words"),
    [
        ({}, None, "ok", "180x120, 10 fps stated, 9.9 measured"),
        ({"measured_fps": 5.1}, None, "warning", "10 wanted"),
        ({"measured_fps": 5.1}, 5.0, "ok", "5.1 measured"),
        ({"size": [640, 480]}, None, "bad", "the bundle is for 180x120"),
        ({"live": False, "measured_fps": None}, None, "warning", "stored footage"),
        ({"error": "not plugged in"}, None, "bad", "not plugged in"),
    ],
)
def test_what_is_said_of_a_camera(found: dict[str, Any], fps: float | None, state: str, words: str) -> None:
    whole = {"live": True, "size": [180, 120], "fps": 10.0, "measured_fps": 9.9, "n_frames": 30, **found}
    check = doctor.camera_check("street", CameraSettings(SOURCE, "x.evb", fps=fps), whole, (180, 120))
    assert check.state == state and words in check.text


# The whole


@pytest.fixture
def unit(tmp_path: Path, tiny_bundle: Path) -> Path:
    """The configuration of a unit that is fit, but for what this machine lacks."""
    config = tmp_path / "device.yaml"
    lines = {"name": "doctor-test", "data": str(tmp_path / "data"), "set": [f"trust.keys={tmp_path}/keys"]}
    cameras = {"street": {"source": SOURCE, "bundle": str(tiny_bundle)}}
    config.write_text(json.dumps({**lines, "cameras": cameras}))
    return config


def test_a_unit_that_is_fit(cli: Cli, unit: Path) -> None:
    said = cli("doctor", "--config", unit, "--json")
    found = json.loads(said.out)
    by_name = {check["what"]: check for check in found["checks"]}
    assert said.code == 0 and found["bad"] == 0 and set(found) == {"checks", "ok", "warning", "bad"}
    assert "self-test passed" in by_name["bundle of street"]["text"]
    assert "180x120, 10 fps stated" in by_name["camera street"]["text"]
    assert by_name["data folder"]["state"] == "ok"
    assert by_name["trust"]["state"] == "warning" and "owner.pub" in by_name["trust"]["advice"]


def test_each_check_is_one_line(cli: Cli, unit: Path) -> None:
    said = cli("doctor", "--config", unit)
    *lines, last = said.out.splitlines()
    assert all(line.split()[0] in ("ok", "warning", "bad") for line in lines)
    assert last.endswith(", 0 bad") and last.split()[0] == str(sum(line.startswith("ok") for line in lines))


def test_what_is_bad_is_exit_code_3(cli: Cli, unit: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.evb"
    plain = json.loads(unit.read_text())
    data = bytearray(Path(plain["cameras"]["street"]["bundle"]).read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    plain["cameras"]["street"]["bundle"] = str(damaged)
    plain["cameras"]["yard"] = {"source": "/dev/video97", "store": str(tmp_path / "store")}
    unit.write_text(json.dumps(plain))
    said = cli("doctor", "--config", unit, "--json")
    by_name = {check["what"]: check for check in json.loads(said.out)["checks"]}
    assert said.code == 3
    assert by_name["bundle of street"]["state"] == "bad" and str(damaged) in by_name["bundle of street"]["text"]
    assert "edge-vad store install" in by_name["bundle of yard"]["advice"]
    assert by_name["camera yard"]["state"] == "bad"


def test_a_bundle_on_trial_in_a_store(tiny_bundle: Path, tmp_path: Path) -> None:
    from edge_vad.store import Store

    store = Store(tmp_path / "store")
    store.activate(store.install(tiny_bundle))
    profile = load_profile("desktop_cpu", [f"trust.keys={tmp_path}/keys"])
    check, size = doctor.bundle("street", CameraSettings(SOURCE, store=str(store.folder)), profile)
    assert check.state == "ok" and "on trial, start 0 of 3" in check.text and size == (180, 120)


def test_required_keys_that_are_not_installed(tmp_path: Path) -> None:
    settings = [f"trust.keys={tmp_path}", "trust.signature=required"]
    assert doctor.trusted_keys(load_profile("desktop_cpu", settings)).state == "bad"
    (tmp_path / "owner.pub").write_text("no key")
    check = doctor.trusted_keys(load_profile("desktop_cpu", settings[:1]))
    assert check.state == "bad" and "owner.pub" in check.text


def test_the_cameras_of_a_running_unit_are_left_alone(
    cli: Cli, unit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    status = {"pid": os.getpid(), "updated_monotonic_s": time.monotonic() + 0.5}
    cameras = {"street": {"state": "running", "reason": "", "fps": {"captured": 24.9}}}
    monkeypatch.setattr("edge_vad.commands.doctor.try_camera", lambda *_: pytest.fail("it was opened"))
    write_status(tmp_path / "run/doctor-test.json", {**status, "cameras": cameras})
    assert "running, watched by the unit that runs: 24.9 fps captured" in cli("doctor", "--config", unit).out


def test_a_profile_alone(cli: Cli, tmp_path: Path) -> None:
    said = cli("doctor", "--profile", "raspberry_pi_5", "--set", f"trust.keys={tmp_path}")
    assert said.code == 0 and "runs a model on cpu, 3 threads" in said.out and "camera" not in said.out.split("packages")[0]
    said = cli("doctor", "--config", tmp_path / "nowhere.yaml")
    assert said.code == 1 and "nowhere.yaml" in said.err


def test_nothing_is_reported_to_anybody(tiny_bundle: Path, tmp_path: Path) -> None:
    """ONNX Runtime would leave the mark of its own reporting in the home folder."""
    unset = ("ORT_DISABLE_TELEMETRY", "CI", "XDG_CACHE_HOME")
    environment = {**{key: value for key, value in os.environ.items() if key not in unset}, "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "edge_vad", "run", "--bundle", str(tiny_bundle)]
    subprocess.run(
        [*command, "--source", "synthetic:seconds=2,size=180x120"], env=environment, check=True, capture_output=True
    )
    assert list(tmp_path.rglob("*")) == []

"""What systemd is told, by a unit in a process of its own: ready, alive only while there is progress, stopping."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from edge_vad.notify import Notifier

LIVE = "synthetic:size=180x120,fps=10,anomalies=none"
QUIET_S = 5.0  # two pings and a half
BACKEND = """
import time
from pathlib import Path
from edge_vad.backends.onnxruntime import OnnxRuntime

class Stuck(OnnxRuntime):
    def run(self, inputs):
        while Path(__file__).with_name("stuck").exists():
            time.sleep(0.05)
        return super().run(inputs)
"""
CAMERA = """
from edge_vad.cameras.base import Camera
from edge_vad.errors import SourceError

class Unplugged(Camera):
    live = True

    def __init__(self, location, fps=None, size=None):
        raise SourceError("not plugged in")

    def frames(self):
        raise NotImplementedError
"""


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


@dataclass
class Service:
    """A unit that runs, and the socket over which it tells how it is."""

    process: subprocess.Popen[bytes]
    socket: socket.socket

    def said(self) -> list[str]:
        """The next message, by lines."""
        return self.socket.recv(4096).decode().splitlines()

    def said_within(self, seconds: float) -> list[str]:
        """First lines of all messages from now on."""
        self.drain()
        until, found = time.monotonic() + seconds, []
        while (left := until - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                found.append(self.said()[0])
            except TimeoutError:
                break
        self.socket.settimeout(30)
        return found

    def drain(self) -> None:
        """Forget what was said so far."""
        self.socket.setblocking(False)
        try:
            while True:
                self.said()
        except BlockingIOError:
            self.socket.settimeout(30)


Start = Callable[..., AbstractContextManager[Service]]


@pytest.fixture
def start(manager: socket.socket, tiny_bundle: Path, tmp_path: Path) -> Start:
    """Starts `edge-vad run` on a live source as a service."""

    @contextmanager
    def run(source: str = LIVE, *more: str) -> Iterator[Service]:
        code = tmp_path / "service_test"
        code.mkdir(exist_ok=True)
        (code / "backend.py").write_text(BACKEND)
        (code / "camera.py").write_text(CAMERA)
        command = [sys.executable, "-m", "edge_vad", "run", "--bundle", str(tiny_bundle), "--source", source, *more]
        environment = {**os.environ, "PYTHONPATH": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            yield Service(process, manager)
        finally:
            process.kill()
            process.communicate()

    return run


def test_ready_alive_stopping(start: Start) -> None:
    with start() as unit:
        assert unit.said() == ["READY=1"]
        ping, status = unit.said()
        assert ping == "WATCHDOG=1" and status.startswith("STATUS=1 cameras, ")
        frames = [int(unit.said()[1].split()[2]) for _ in range(3)]
        assert frames == sorted(set(frames)) and frames[-1] > 0  # each one with more frames scored
        unit.drain()
        asked = time.monotonic()
        unit.process.send_signal(signal.SIGTERM)
        while (said := unit.said()) != ["STOPPING=1"]:
            assert said[0] == "WATCHDOG=1"
        assert unit.process.wait(10) == 0
        assert time.monotonic() - asked < 5
        assert unit.said_within(0.3) == []


def test_a_stopped_process_does_not_ping(start: Start) -> None:
    with start() as unit:
        while unit.said()[0] != "WATCHDOG=1":
            pass
        unit.process.send_signal(signal.SIGSTOP)
        assert unit.said_within(QUIET_S) == []
        unit.process.send_signal(signal.SIGCONT)
        assert "WATCHDOG=1" in unit.said_within(QUIET_S)


def test_no_thread_pings_while_the_loop_hangs(start: Start, tmp_path: Path) -> None:
    with start(LIVE, "--set", "inference.backend=service_test.backend") as unit:
        while unit.said()[0] != "WATCHDOG=1":
            pass
        (tmp_path / "service_test/stuck").touch()
        time.sleep(1)  # the frame that was being scored
        assert unit.said_within(QUIET_S) == []
        assert unit.process.poll() is None
        (tmp_path / "service_test/stuck").unlink()
        assert "WATCHDOG=1" in unit.said_within(QUIET_S)


def test_it_is_alive_while_a_camera_is_to_be_connected_again(start: Start) -> None:
    with start("service_test.camera:0") as unit:
        assert unit.said() == ["READY=1"]
        assert unit.said_within(QUIET_S).count("WATCHDOG=1") >= 2
        unit.process.send_signal(signal.SIGTERM)
        assert unit.process.wait(10) == 0


def test_pictures_that_are_not_scored_are_no_progress(
    tiny_bundle: Path, tmp_path: Path, manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_vad.device import CameraSettings, Device
    from edge_vad.profile import load_profile
    from edge_vad.unit import Unit

    device = Device({"street": CameraSettings(LIVE, str(tiny_bundle))}, runtime=str(tmp_path), sinks=())
    unit = Unit(device, load_profile("desktop_cpu"))
    [channel] = unit.channels
    try:
        until = time.monotonic() + 30
        while channel.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert channel.progressing
        later = SimpleNamespace(monotonic=lambda: time.monotonic() + 31)
        monkeypatch.setattr("edge_vad.channel.time", later)
        assert not channel.progressing
        unit._keep_house()
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        channel.error = "failed for now"  # which was told, and is tried again
        assert channel.progressing
    finally:
        monkeypatch.undo()
        unit._stop()


def test_without_a_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notifier = Notifier()
    notifier.ready()
    notifier.alive("x")
    notifier.stopping()


@pytest.mark.parametrize("name", ["@edge-vad-test-{}", "/nowhere/notify-{}"])
def test_addresses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    address = name.format(os.getpid())
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    if address.startswith("/"):
        Notifier().ready()  # a manager that has gone is no reason to fail
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + address[1:])
        Notifier().alive("2 cameras")
        assert listening.recv(100) == b"WATCHDOG=1\nSTATUS=2 cameras"


# The journal


def run_with_stderr(path: Path, stream: str, *arguments: str) -> list[str]:
    """Lines that a command writes to standard error, a file; stream: what JOURNAL_STREAM says, {} is that file."""
    with path.open("w") as stderr:
        found = os.fstat(stderr.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": stream.format(f"{found.st_dev}:{found.st_ino}")}
        command = [sys.executable, "-m", "edge_vad", *arguments]
        subprocess.run(command, env=environment, stderr=stderr, stdout=subprocess.DEVNULL, check=False)
    return path.read_text().splitlines()


def test_lines_for_the_journal_carry_priorities(tiny_bundle: Path, tmp_path: Path) -> None:
    arguments = ("run", "--bundle", str(tiny_bundle), "--source", "synthetic:seconds=1,size=180x120")
    lines = run_with_stderr(tmp_path / "journal", "{}", *arguments)
    assert lines and all(line.startswith("<6>") for line in lines)
    elsewhere = run_with_stderr(tmp_path / "file", "1:2", *arguments)
    assert elsewhere and not any(line.startswith("<") for line in elsewhere)
    [error] = run_with_stderr(tmp_path / "error", "{}", "bundle", "inspect", "nowhere.evb")
    assert error.startswith("<3>edge-vad bundle: nowhere.evb")


def test_every_line_of_a_traceback_has_the_priority() -> None:
    import logging

    from edge_vad.cli import JournalFormatter

    def line(level: int, text: str) -> str:
        return JournalFormatter("%(message)s").format(logging.LogRecord("x", level, "", 0, text, None, None))

    assert line(logging.ERROR, "a\nb") == "<3>a\n<3>b"
    assert [line(level, "a")[:3] for level in (50, 45, 30, 25, 20, 10, 5)] == [
        "<2>",
        "<3>",
        "<4>",
        "<6>",
        "<6>",
        "<7>",
        "<7>",
    ]

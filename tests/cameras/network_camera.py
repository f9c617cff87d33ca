"""Starts, stalls and kills the server of rtsp_server.py."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

PYTHON = "/usr/bin/python3"  # the bindings of GStreamer belong to the system's
SERVER = Path(__file__).with_name("rtsp_server.py")


class NetworkCamera:
    """An RTSP server in a process of its own."""

    def __init__(self) -> None:
        if not Path(PYTHON).exists():
            pytest.skip(f"no {PYTHON}, which the RTSP server runs under")
        checked = subprocess.run([PYTHON, str(SERVER), "--check"], capture_output=True, text=True)
        if checked.returncode:
            said = (checked.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            pytest.skip(f"no RTSP server under {PYTHON}: {said} (see the packages in {SERVER.name})")
        self._port = "0"
        self.start()

    @property
    def address(self) -> str:
        return f"rtsp://127.0.0.1:{self._port}/camera"

    def start(self) -> None:
        """Start, or start again at the same address."""
        self._process = subprocess.Popen([PYTHON, str(SERVER), self._port], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._port = self._process.stdout.readline().strip()
        assert self._port, "the server did not start"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()

    def stall(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

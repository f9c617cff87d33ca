"""A small systemctl for places without systemd: starts, supervises and stops the program that a unit file names.

SYSTEMD_UNITS: folder of unit files. SYSTEMD_RUN: where it keeps process ids and what the programs say. Of systemd it has
what an update touches: Type=notify (start returns when the program is ready, or has ended), Restart=always, stop with
SIGTERM and then SIGKILL, and the properties that Ansible asks for.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

UNITS = Path(os.environ.get("SYSTEMD_UNITS", "/etc/systemd/system"))
RUN = Path(os.environ.get("SYSTEMD_RUN", "/run/systemd-stand-in"))
START_S, STOP_S = 60.0, 10.0


def main(action: str, *names: str) -> int:
    if action == "daemon-reload":
        return 0
    unit = names[-1].removesuffix(".service") + ".service"
    there = (UNITS / unit).is_file()
    if action == "show":
        print(f"LoadState={'loaded' if there else 'not-found'}\nActiveState={'active' if supervisor(unit) else 'inactive'}")
        return 0
    if action == "is-active":
        return 0 if supervisor(unit) else 3
    if action in ("enable", "disable", "is-enabled"):
        return 0 if there else 1
    if action in ("stop", "restart"):
        stop(unit)
    return start(unit) if action in ("start", "restart") and there else int(action != "stop")


def supervisor(unit: str) -> int | None:
    """The process that supervises a unit, where one does."""
    try:
        pid = int((RUN / f"{unit}.pid").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid


def stop(unit: str) -> None:
    pid = supervisor(unit)
    if pid is not None:
        os.kill(pid, signal.SIGTERM)
    while pid is not None and supervisor(unit) == pid:
        time.sleep(0.05)


def start(unit: str) -> int:
    if supervisor(unit) is not None:
        return 0
    RUN.mkdir(parents=True, exist_ok=True)
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        os.close(reader)
        if os.fork() == 0:
            supervise(unit, writer)
        os._exit(0)
    os.close(writer)
    os.wait()
    if os.read(reader, 1) == b"1":
        return 0
    sys.stderr.write(f"Job for {unit} failed because the control process exited with error code.\n")
    return 1


class Stopped(Exception):
    """The supervisor was asked to end."""


def supervise(unit: str, told: int) -> None:
    (RUN / f"{unit}.pid").write_text(str(os.getpid()))
    log = os.open(RUN / f"{unit}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    children: list[subprocess.Popen[bytes]] = []
    signal.signal(signal.SIGTERM, stopped)
    try:
        while True:
            run_once(unit, log, told if not children else None, children)
    except Stopped:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        end(children[-1])
    finally:
        (RUN / f"{unit}.pid").unlink(missing_ok=True)
        os._exit(0)


def stopped(*_: object) -> None:
    raise Stopped


def run_once(unit: str, log: int, told: int | None, children: list[subprocess.Popen[bytes]]) -> None:
    """Start it, tell a pipe whether it became ready, and wait for its end and the time after which it is started again."""
    settings = [line.split("=", 1) for line in (UNITS / unit).read_text().splitlines() if "=" in line]
    values = dict(settings)
    environment = dict(value.split("=", 1) for key, value in settings if key == "Environment")
    path = RUN / f"{unit}.notify"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(str(path))
        notices.settimeout(0.1)
        command = shlex.split(values["ExecStart"])
        environment = {**os.environ, **environment, "NOTIFY_SOCKET": str(path)}
        child = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        children[:] = [child]
        if told is not None:
            os.write(told, b"1" if is_ready(notices, child) else b"0")
            os.close(told)
        child.wait()
    time.sleep(float(values.get("RestartSec", "5")))


def is_ready(notices: socket.socket, child: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + START_S
    while child.poll() is None and time.monotonic() < deadline:
        try:
            if b"READY=1" in notices.recv(4096):
                return True
        except TimeoutError:
            continue
    return False


def end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

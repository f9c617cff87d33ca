"""Runs inside a root: edge-vad run as the service would, with its camera's process killed once on the way.

    python watch_unit.py CONFIG N_SCORED LIMIT_S

Prints one JSON object: the processes, the status before and after, and how the unit ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATUS = Path("/run/edge-vad/pole-1.json")


def main(config: str, n_scored: str, limit_s: str) -> None:
    edge_vad = Path(sys.executable).with_name("edge-vad")
    with Path("/root/unit.log").open("w") as log:
        unit = subprocess.Popen([edge_vad, "run", "--config", config], stdout=log, stderr=log)
    until = time.monotonic() + float(limit_s)
    try:
        before = _wait(lambda camera: camera["scored"] >= int(n_scored), unit, until)
        killed = _capture_of(unit.pid)
        os.kill(killed, signal.SIGKILL)
        enough = before["scored"] + int(n_scored)
        after = _wait(lambda camera: camera["lost"] > before["lost"] and camera["scored"] >= enough, unit, until)
        status = subprocess.run([edge_vad, "status", "--json"], capture_output=True, text=True, check=False)
        capture = _capture_of(unit.pid)
        unit.send_signal(signal.SIGTERM)
        code = unit.wait(60)
    finally:
        unit.kill()
    said = {"unit": unit.pid, "killed": killed, "capture": capture, "before": before, "after": after, "exit": code}
    print(json.dumps({**said, "status": [status.returncode, status.stdout], "log": _log()}))


def _wait(reached: Callable[[dict[str, Any]], bool], unit: subprocess.Popen[bytes], until: float) -> dict[str, Any]:
    """What the status says of the camera once that is so."""
    camera: dict[str, Any] = {}
    while time.monotonic() < until:
        if unit.poll() is not None:
            raise SystemExit(f"the unit ended with {unit.returncode}: {_log()}")
        if STATUS.exists():
            camera = json.loads(STATUS.read_text())["cameras"]["pole"]
            if reached(camera):
                return camera
        time.sleep(0.5)
    raise SystemExit(f"not reached in time: {camera} {_log()}")


def _capture_of(parent: int) -> int:
    """The process that holds the camera."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            is_child = f"\nPPid:\t{parent}\n" in (folder / "status").read_text()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if is_child and b"edge_vad.capture" in command:
            return int(folder.name)
    raise SystemExit(f"no capture process: {_log()}")


def _log() -> str:
    return Path("/root/unit.log").read_text()


if __name__ == "__main__":
    main(*sys.argv[1:])

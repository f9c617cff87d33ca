"""Cameras and backends tried in a process of their own, with limits: a driver that hangs or crashes stays there.

The parent calls `try_camera` or `try_backend`; the child is `main`, with the values on standard input.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Any

from edge_vad.child import command
from edge_vad.errors import EdgeVadError

OPENING_S, WATCHING_S, SLACK_S = 20.0, 3.0, 5.0
BACKEND_S = 60.0
N_FRAMES = 100
# y = x of one float, as ONNX: every runtime loads it, and says what it runs it on.
IDENTITY = bytes.fromhex(
    "08083a370a100a017812017922084964656e746974791201675a0f0a0178120a0a08080112040a020801"
    "620f0a0179120a0a08080112040a02080142040a001011"
)


def try_camera(source: str, fps: float | None = None, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """live, size [width, height], fps as stated, measured_fps and n_frames of a source that is opened for a few seconds.

    Where that fails: {"error": one line}.
    """
    return _in_child("camera", {"source": source, "fps": fps, "size": size}, OPENING_S + WATCHING_S + SLACK_S)


def try_backend(name: str, device: str, threads: int, precision: str = "fp32") -> dict[str, Any]:
    """{} when the backend loads and runs a model on that device, else {"error": one line}."""
    chosen = {"backend": name, "device": device, "threads": threads, "precision": precision}
    return _in_child("backend", chosen, BACKEND_S)


def _in_child(what: str, arguments: dict[str, Any], limit_s: float) -> dict[str, Any]:
    try:
        child = subprocess.run(
            command("edge_vad.probe", what),
            input=json.dumps(arguments),  # not on the command line: an address may hold a password
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {limit_s:g} s"}
    except OSError as error:
        return {"error": f"no process can be started: {error.strerror}"}
    try:
        return dict(json.loads(child.stdout.strip().splitlines()[-1]))
    except (ValueError, IndexError):
        how = f"signal {-child.returncode}" if child.returncode < 0 else f"exit code {child.returncode}"
        said = child.stderr.strip().splitlines()
        return {"error": f"the process ended with {how}" + (f": {said[-1]}" if said else "")}


def _camera(source: str, fps: float | None, size: list[int] | None) -> dict[str, Any]:
    from edge_vad.cameras import is_live, open_camera

    live = is_live(source)
    times: list[float] = []
    shape: tuple[int, ...] = ()
    with open_camera(source, fps, (size[0], size[1]) if size else None) as camera:
        until = time.monotonic() + OPENING_S
        for frame in camera.frames():
            until = until if times else time.monotonic() + WATCHING_S
            times.append(frame.timestamp)
            shape = frame.image.shape
            if len(times) >= N_FRAMES or time.monotonic() > until:
                break
        stated = camera.fps
    if not times:
        return {"error": f"{source}: it opens, but no picture comes"}
    lasted = times[-1] - times[0]
    measured = (len(times) - 1) / lasted if live and lasted > 0 else None
    return {
        "live": live,
        "size": [shape[1], shape[0]],
        "fps": stated,
        "measured_fps": None if measured is None else round(measured, 2),
        "n_frames": len(times),
    }


def _backend(**chosen: Any) -> dict[str, Any]:
    import numpy as np

    from edge_vad.backends.base import load_backend
    from edge_vad.errors import BackendError
    from edge_vad.profile import Inference

    inference = Inference(**chosen)
    backend = load_backend(inference)(IDENTITY, threads=inference.threads, device=inference.device)
    [answer] = backend.run({"x": np.array([3.0], np.float32)}).values()
    if answer[0] != 3.0:
        raise BackendError(f"backend {inference.backend} computes something else than it should")
    return {}


def main(arguments: list[str]) -> int:
    """The child: one JSON object on standard output."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        values = json.load(sys.stdin)
        found = _camera(**values) if arguments[0] == "camera" else _backend(**values)
    except EdgeVadError as error:
        found = {"error": str(error)}
    sys.stdout.write("\n" + json.dumps(found) + "\n")
    return 0

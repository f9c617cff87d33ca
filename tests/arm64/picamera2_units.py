"""The real picamera2 in a unit at work: edge-vad run with the source picamera2:0, in a capture process of its own.

    make test-arm64

On an emulated arm64 system and on one of this processor's kind. The camera is libcamera's virtual one: no sensor, and only
the format NV12 (tests/cameras/virtual_pipeline.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from units import FPS, PYTHON, SIZE, Footage, Unit
from virtual_camera import give_camera

CONFIG = "/etc/edge-vad/device.yaml"
N_SCORED = 10
LIMIT_S = 400


@pytest.mark.parametrize("system", ["trixie", "trixie_x86_64"])
def test_a_unit_watches_through_picamera2(system: str, unit_of: Callable[[str], Unit], footage: Footage) -> None:
    unit = unit_of(system)
    give_camera(unit.root, footage.clip, SIZE, FPS)
    unit.root.take(Path(__file__).with_name("watch_unit.py"), "/root/watch_unit.py")
    said = json.loads(unit.root.run(PYTHON, "/root/watch_unit.py", CONFIG, str(N_SCORED), str(LIMIT_S)))
    before, after = said["before"], said["after"]
    print(f"\n{system}: {after['scored']} frames scored, {after['dropped']} dropped, {after['skipped']} skipped")

    assert before["state"] == after["state"] == "running" and before["source"] == "picamera2:0"
    assert before["captured"] >= before["scored"] >= N_SCORED and after["view"] == "clear"
    assert before["fps"]["captured"] <= 1.2 * FPS  # gaps are counted by the time stamps of the sensor
    assert after["bundle"]["name"] == "street" and after["score"] is not None
    assert said["capture"] != said["killed"] and said["capture"] != said["unit"]
    assert "pole: camera lost" in said["log"] and "pole: camera back" in said["log"]
    assert said["exit"] == 0 and "unit stopped" in said["log"]

    records = [json.loads(line) for line in unit.edge_vad("events", "/var/lib/edge-vad/data", "--json").splitlines()]
    told = [(record["type"], record["kind"]) for record in records if record["type"] != "anomaly"]
    cameras = [kind for what, kind in told if what == "camera"]
    assert cameras[:2] == ["lost", "back"] and cameras[-1] == "back"
    assert told[0] == ("unit", "started") and told[-1] == ("unit", "stopped")

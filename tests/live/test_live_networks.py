"""A unit with a trained network at one camera and a memory at the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from live_stage import Stage, source, watched

from edge_vad.device import CameraSettings

GATE, DOOR = source("gate"), source("door")


def test_a_network_and_a_memory_watch_side_by_side(
    stage: Stage, network_bundle: Callable[[str], Path], tiny_bundle: Path, tmp_path: Path
) -> None:
    cameras = {"gate": CameraSettings(GATE, str(network_bundle("maam"))), "door": CameraSettings(DOOR, str(tiny_bundle))}
    with watched(tmp_path, cameras) as unit:
        unit.until_scored()
        assert unit.status("gate")["bundle"]["name"] == "maam" and unit.status("gate")["score"] < 1
        stage.show(GATE, "strange", 40)
        unit.until(lambda: "anomaly.start" in unit.kinds("gate", "anomaly"), "blocks that jump about are an event")
        assert unit.kinds("door", "anomaly") == []


def test_after_a_gap_the_window_fills_again_before_anything_is_said(
    stage: Stage, network_bundle: Callable[[str], Path], tmp_path: Path
) -> None:
    with watched(tmp_path, {"gate": CameraSettings(GATE, str(network_bundle("maam")))}) as unit:
        unit.until_scored()
        stage.fail(GATE, "unplugged")
        stage.show(GATE, "street", 3)
        unit.until(lambda: "camera.back" in unit.kinds("gate", "camera"), "the camera is back")
        unit.until_scored()
        assert unit.status("gate")["state"] == "running" and unit.kinds("gate", "anomaly") == []

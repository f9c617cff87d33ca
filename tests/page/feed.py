"""What a unit would show: a generated street with its truth as regions, ten minutes of scores, events with clips."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_vad.anomaly_map import anomaly_map
from edge_vad.cameras.synthetic import SyntheticStreet
from edge_vad.page import StatusPage
from edge_vad.types import Frame, Region, Result

STAGE_MS = {"motion": 1.9, "regions": 0.7, "encoder": 6.2, "search": 1.4, "scoring": 0.3}
MEDIA = {
    "snapshots": 12,
    "clips": 11,
    "skipped": 0,
    "failed": 0,
    "deleted": 3,
    "open": 1,
    "pre_roll_mb": 1.2,
    "last_error": "",
}


@dataclass
class Camera:
    """One generated camera. peaks: (seconds before now, seconds long, score) of its events."""

    name: str
    seed: int
    peaks: tuple[tuple[float, float, float], ...]
    view: int = 0

    def __post_init__(self) -> None:
        anomalies = "cyclist" if self.peaks else "none"
        self.street = SyntheticStreet(f"seed={self.seed},seconds=40,anomalies={anomalies},view={self.view}")
        self.shown = min(range(0, 380, 4), key=self._far_from_middle) if self.peaks else 60

    def _far_from_middle(self, index: int) -> float:
        """How far the anomaly of a frame is from where it can be seen well."""
        truth = next(iter(self.street.truth(index)), None)
        if truth is None:
            return math.inf
        x0, y0, x1, y1 = truth.box
        return math.hypot((x0 + x1) / 2 - 180, (y0 + y1) / 2 - 150)

    def score(self, ago_s: float) -> float:
        """The score so many seconds ago: a quiet street with peaks."""
        usual = 0.25 + 0.12 * math.sin(ago_s / 17) + 0.09 * math.sin(ago_s / 3.1 + self.seed)
        near = [peak * math.exp(-(((ago_s - at) / long) ** 2)) for at, long, peak in self.peaks]
        return max([usual, *near])

    def frame(self, at_s: float, index: int | None = None, score: float = 1.9) -> tuple[Frame, tuple[Region, ...]]:
        """A frame with its truth as regions of that score."""
        index = self.shown if index is None else index
        made = self.street.frame(index)
        found = [Region(*truth.box, score=score) for truth in self.street.truth(index) if truth.n_pixels > 100]
        return Frame(made.image, made.luma, at_s, index), tuple(found)


def feed(page: StatusPage, cameras: list[Camera], media: Path | None, now_s: float | None = None) -> None:
    """Ten minutes of a unit's life, at once."""
    now_s = time.monotonic() if now_s is None else now_s
    records: list[dict[str, Any]] = [record(0, now_s - 620, "", "unit", "started", {"cameras": [c.name for c in cameras]})]
    for camera in cameras:
        show_scores(page, camera, now_s)
        for number, (ago_s, long_s, peak) in enumerate(sorted(camera.peaks, reverse=True), 1):
            records += event_records(camera, number, now_s, ago_s, long_s, peak, media)
    for plain in sorted(records, key=lambda plain: float(plain["monotonic_s"])):
        page.record(plain)
    page.status(status(cameras))


def show_scores(page: StatusPage, camera: Camera, now_s: float) -> None:
    """Scores of ten minutes; only the last picture is ever seen."""
    frame, _ = camera.frame(now_s)
    nothing = np.zeros((1, 1), np.float32)
    for step in range(1200, 0, -1):
        at_s = now_s - step / 2
        result = Result(frame.index, at_s, camera.score(step / 2), {}, (), nothing, (), STAGE_MS)
        page.see(camera.name, Frame(frame.image, frame.luma, at_s, frame.index), result)
    show_frame(page, camera, now_s)


def show_frame(page: StatusPage, camera: Camera, at_s: float, index: int | None = None) -> None:
    """One frame with its score, regions and map."""
    score = camera.score(0)
    frame, regions = camera.frame(at_s, index, score)
    picture = anomaly_map(frame.image.shape[:2], regions)
    page.see(camera.name, frame, Result(frame.index, at_s, score, {}, regions, picture, (), STAGE_MS))


def event_records(
    camera: Camera, number: int, now_s: float, ago_s: float, long_s: float, peak: float, media: Path | None
) -> list[dict[str, Any]]:
    """Start and end of one event, and its files."""
    start_s, end_s = now_s - ago_s - long_s, now_s - ago_s + long_s
    name = f"{camera.name}-{number:04d}"
    data = {
        "id": number,
        "start_s": start_s,
        "end_s": None,
        "peak_score": peak,
        "components": {"speed": 3.1, "spatial": 1.2},
    }
    files = {}
    if media is not None:
        write_media(camera, media / camera.name, name, n=12 if end_s <= now_s else 0)
        files = {"snapshot": f"{camera.name}/{name}.jpg", "clip": f"{camera.name}/{name}.avi"}
    start = record(number, start_s, camera.name, "anomaly", "start", {**data, **files})
    if end_s > now_s:
        return [start]
    return [start, record(number, end_s, camera.name, "anomaly", "end", {**data, "end_s": end_s})]


def write_media(camera: Camera, folder: Path, name: str, n: int) -> None:
    """A snapshot, and a clip of n frames; of an event that goes on there is none yet."""
    folder.mkdir(parents=True, exist_ok=True)
    images = [np.ascontiguousarray(camera.street.frame(camera.shown + i).image[..., ::-1]) for i in range(0, max(n, 1), 2)]
    cv2.imwrite(str(folder / f"{name}.jpg"), images[0])
    if n == 0:
        return
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(folder / f"{name}.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (width, height))
    for image in images:
        writer.write(image)
    writer.release()


def record(seq: int, at_s: float, camera: str, type: str, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """A record as `edge_vad.record.Record.plain` gives it."""
    wall = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - time.monotonic() + at_s)) + ".000Z"
    clocks = {"seq": seq, "boot": "a-boot", "monotonic_s": at_s, "time": wall}
    return {**data, **clocks, "camera": camera, "type": type, "kind": kind}


def status(cameras: list[Camera], **states: str) -> dict[str, Any]:
    """As `Unit.status`; states: of cameras that do not run."""
    told = {camera.name: camera_status(camera, states.get(camera.name, "running")) for camera in cameras}
    bad = [camera["state"] for camera in told.values() if camera["state"] != "running"]
    delivery = {"pending": 0, "delivered": 148, "lost": 0, "last_error": ""}
    return {
        "unit": "north-gate",
        "state": bad[0] if bad else "running",
        "pid": 1,
        "recent": [],
        "uptime_s": 98_200.0,
        "cameras": told,
        "media": {camera.name: MEDIA for camera in cameras},
        "delivery": {"log": delivery, "mqtt": {**delivery, "pending": 2, "last_error": "no route to host"}},
        "device": {
            "model": "Raspberry Pi 5 Model B",
            "temperature_c": 61.2,
            "clock_mhz": 2400.0,
            "throttled": ["under-voltage since boot"],
            "load": 1.42,
            "memory_mb": 212.3,
            "available_mb": 2890,
        },
    }


def camera_status(camera: Camera, state: str) -> dict[str, Any]:
    """As `Channel.status`."""
    return {
        "state": state,
        "reason": "" if state == "running" else "no frame for 5.0 s",
        "source": "/dev/video0",
        "bundle": {"id": "9f2c41d07ab3", "name": "street", "serial": 3},
        "backend": "onnxruntime",
        "on_trial": False,
        "view": "clear",
        "degraded": False,
        "score": camera.score(0),
        "fps": {"captured": 10.0, "scored": 5.0},
        "captured": 982_140,
        "scored": 980_020,
        "dropped": 2120,
        "lost": 1,
        "skipped": 0,
        "events": len(camera.peaks),
        "latency_ms": {"p50": 24.3, "p95": 41.0, "p99": 63.8},
        "stage_ms": STAGE_MS,
    }

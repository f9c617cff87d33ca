"""What the page knows: filled by the detection loop, read by the clients' threads as plain values."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

from edge_vad.page.files import media_url
from edge_vad.page.history import Entry, History
from edge_vad.page.live import Live
from edge_vad.types import Frame, Result

STALE_S = 10.0  # the status comes every two seconds
N_NOTICES, N_STRETCHES = 30, 100
WELL = ("running", "ended")
_SHOWN = ("camera", "id", "start_s", "end_s", "peak_score", "components", "view")


class State:
    """One unit."""

    def __init__(self, name: str, media_folder: Path | None) -> None:
        self.media_folder = media_folder
        self.cameras: dict[str, Live] = {}
        self.history = History()
        self._status: dict[str, Any] = {"unit": name, "state": "starting", "cameras": {}}
        self._status_s = -math.inf

    # The detection loop

    def see(self, camera: str, frame: Frame, result: Result) -> None:
        """The newest frame of a camera."""
        live = self.cameras.get(camera)
        if live is None:
            live = self.cameras[camera] = Live()
        live.see(frame, result)

    def status(self, status: dict[str, Any]) -> None:
        """What the unit says of itself."""
        self._status, self._status_s = status, time.monotonic()

    # The clients' threads

    @property
    def well(self) -> bool:
        """Whether every camera runs, by a status that is not older than a few seconds."""
        cameras = self._status.get("cameras") or {}
        fresh = time.monotonic() - self._status_s < STALE_S
        return fresh and bool(cameras) and all(camera.get("state") in WELL for camera in cameras.values())

    def status_now(self) -> dict[str, Any]:
        """The last status, with the size of each camera's picture and the age of it all; no NaN in it."""
        sizes = {name: live.size for name, live in list(self.cameras.items())}
        cameras = {
            name: {**_without(camera, "source"), "picture": sizes.get(name)}  # an address may hold a password
            for name, camera in (self._status.get("cameras") or {}).items()
        }
        age_s = None if math.isinf(self._status_s) else round(time.monotonic() - self._status_s, 1)
        told: dict[str, Any] = plain({**_without(self._status, "recent", "pid"), "cameras": cameras, "age_s": age_s})
        return told

    def scores(self, camera: str) -> dict[str, Any] | None:
        """The scores of a camera and the stretches of its events, on the same clock; None when it is not known."""
        live = self.cameras.get(camera)
        if live is None:
            return None
        scores = live.scores()
        ours = [e for e in self.history.events(N_STRETCHES) if e.ours and e.record.get("camera") == camera]
        stretches = [_stretch(entry) for entry in reversed(ours)]
        told: dict[str, Any] = plain({"camera": camera, **scores, "stretches": stretches})
        return told

    def events(self, n: int) -> dict[str, Any]:
        """The latest events with the addresses of their files, and the latest notices; both newest first."""
        events = [self._event(entry) for entry in self.history.events(n)]
        told: dict[str, Any] = plain({"events": events, "notices": self.history.notices(N_NOTICES)})
        return told

    def _event(self, entry: Entry) -> dict[str, Any]:
        record, camera = entry.record, str(entry.record.get("camera", ""))
        start_s, end_s = record.get("start_s"), record.get("end_s")
        folder = self.media_folder
        return {
            **{key: record.get(key) for key in _SHOWN},
            "key": f"{record.get('boot')}/{entry.time}/{camera}/{record.get('id')}",
            "state": entry.state,
            "time": entry.time,
            "duration_s": None if start_s is None or end_s is None else round(end_s - start_s, 2),
            "snapshot": media_url(folder, "media", camera, record.get("snapshot")),
            "thumbnail": media_url(folder, "thumb", camera, record.get("snapshot")),
            "clip": media_url(folder, "clip", camera, record.get("clip")),
            "download": media_url(folder, "media", camera, record.get("clip")),
        }


def _without(told: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in told.items() if key not in keys}


def _stretch(entry: Entry) -> dict[str, Any]:
    return {
        "start_s": entry.record.get("start_s"),
        "end_s": entry.record.get("end_s") if entry.state == "over" else None,
        "peak_score": entry.record.get("peak_score"),
    }


def plain(value: Any) -> Any:
    """The value as JSON can hold it: no NaN, no infinity, no types of other libraries."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if hasattr(value, "item"):  # a NumPy scalar
        value = value.item()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else str(value)

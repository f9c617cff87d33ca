"""The status page of a unit: live pictures, scores, events and health in a browser.

It is fed by the detection loop, which hands over references and goes on; everything that costs time is done for a
client, in that client's thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edge_vad.device import PageSettings
from edge_vad.page.server import Server
from edge_vad.page.state import State
from edge_vad.plugins import require
from edge_vad.types import Frame, Result


class StatusPage:
    """Serves the page from construction until `close`."""

    def __init__(self, settings: PageSettings, name: str, media_folder: Path | None) -> None:
        """name: of the unit. media_folder: where snapshots and clips are, a folder for each camera.

        Raises OutputError when host and port cannot be listened on, MissingPackageError without OpenCV.
        """
        require("cv2", "opencv-python-headless", "the status page")
        self._state = State(name, media_folder)
        self._server = Server(settings, self._state)

    @property
    def url(self) -> str:
        """Where it is; without the token."""
        return self._server.url

    def see(self, camera: str, frame: Frame, result: Result) -> None:
        """The newest frame of a camera: kept by reference, until the next one."""
        self._state.see(camera, frame, result)

    def record(self, plain: dict[str, Any]) -> None:
        """A new record of this run."""
        self._state.history.add(plain)

    def remember(self, plains: Iterable[dict[str, Any]]) -> None:
        """Records of earlier runs, oldest first: before the first of this run."""
        self._state.history.remember(plains)

    def status(self, status: dict[str, Any]) -> None:
        """What the unit says of itself now; it must not be changed any more."""
        self._state.status(status)

    def close(self) -> None:
        """Stop listening and end every connection."""
        self._server.close()

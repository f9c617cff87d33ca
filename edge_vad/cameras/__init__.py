"""Cameras: live devices and stored footage, one file each; `open_camera` picks one by its source string."""

from __future__ import annotations

from pathlib import Path

from edge_vad.cameras.base import Camera
from edge_vad.errors import SourceError
from edge_vad.plugins import available, load

__all__ = ["Camera", "open_camera"]


SHORT = {"rtsp": "rtsp", "rtsps": "rtsp", "csi": "gstreamer", "gst": "gstreamer"}  # scheme: the camera that takes it whole


def open_camera(source: str | Path, fps: float | None = None, size: tuple[int, int] | None = None) -> Camera:
    """Open a source: see `find_camera`. fps: of stored footage, or wanted of a live camera; size: wanted of one.

    Raises SourceError when the source cannot be opened.
    """
    kind, location = find_camera(source)
    return kind(location, fps, size)


def is_live(source: str | Path) -> bool:
    """Whether a source is a live device; it is not opened. Raises SourceError when there is no such source."""
    kind, location = find_camera(source)
    return kind.is_live(location)


def find_camera(source: str | Path) -> tuple[type[Camera], str]:
    """The camera class of a source, and what its constructor takes.

    ``DIR`` (a folder of pictures), ``FILE`` (a video), ``/dev/video0`` or ``0``, ``rtsp://...``, ``csi://0``,
    ``gst:PIPELINE``, or ``NAME:LOCATION`` (a camera of this folder, or ``package.module:LOCATION``).
    """
    text = str(source)
    name, colon, location = text.partition(":")
    if colon and name in SHORT:
        return load("cameras", SHORT[name], Camera), text
    if colon and (name in available("cameras") or "." in name) and not Path(text).exists():
        return load("cameras", name, Camera), location
    path = Path(text)
    if path.is_dir():
        return load("cameras", "images", Camera), text
    if path.is_file():
        return load("cameras", "opencv", Camera), text
    if text.isdigit() or text.startswith("/dev/video"):
        return load("cameras", "v4l2", Camera), text
    raise SourceError(
        f"{text}: no such file or folder, and no camera of that name (cameras: {', '.join(available('cameras'))})"
    )

"""Cameras: live devices and stored footage, one file each; `open_camera` picks one by its source string."""

from __future__ import annotations

from pathlib import Path

from edge_vad.cameras.base import Camera
from edge_vad.errors import SourceError
from edge_vad.plugins import available, load

__all__ = ["Camera", "open_camera"]


def open_camera(source: str | Path, fps: float | None = None) -> Camera:
    """Open ``DIR`` (a folder of pictures), ``FILE`` (a video) or ``NAME:LOCATION`` (a camera of this folder, or a module).

    fps overrides the frame rate of stored footage. Raises SourceError when the source cannot be opened.
    """
    text = str(source)
    name, colon, location = text.partition(":")
    if colon and (name in available("cameras") or "." in name) and not Path(text).exists():
        return load("cameras", name, Camera)(location, fps)
    path = Path(text)
    if path.is_dir():
        return load("cameras", "images", Camera)(text, fps)
    if path.is_file():
        return load("cameras", "opencv", Camera)(text, fps)
    raise SourceError(
        f"{text}: no such file or folder, and no camera of that name (cameras: {', '.join(available('cameras'))})"
    )

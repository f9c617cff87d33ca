"""The files that the page hands out: its own from the package, and media by names that can mean nothing else."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import BinaryIO

from edge_vad.device import CAMERA_NAME

FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,95}\.(jpg|avi)")
TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
    "jpg": "image/jpeg",
    "avi": "video/x-msvideo",
}


def static_files() -> dict[str, tuple[str, bytes]]:
    """Path on the page -> (content type, bytes): read once, so that no name of a request ever reaches a file system."""
    found = {}
    for entry in (resources.files("edge_vad.page") / "static").iterdir():
        _, _, kind = entry.name.rpartition(".")
        if kind in TYPES:
            found[f"/{entry.name}"] = (TYPES[kind], entry.read_bytes())
    return found


def open_media(folder: Path | None, camera: str, name: str) -> BinaryIO | None:
    """A picture or clip; None when there is none of that name. No link is followed below the folder."""
    if folder is None or not CAMERA_NAME.fullmatch(camera) or not FILE_NAME.fullmatch(name):
        return None
    handles = []
    try:
        handles.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        handles.append(os.open(camera, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handles[0]))
        # Not blocking: a named pipe would wait for its writer.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handles[1])
        if stat.S_ISREG(os.fstat(file).st_mode):
            return os.fdopen(file, "rb")
        os.close(file)
    except OSError:
        return None
    finally:
        for handle in handles:
            with suppress(OSError):
                os.close(handle)
    return None


def media_url(folder: Path | None, kind: str, camera: str, value: object) -> str | None:
    """Where the page hands out a file that a record names, with or without folders; None when it is not there."""
    name = Path(value).name if isinstance(value, str) else ""
    if folder is None or not CAMERA_NAME.fullmatch(camera) or not FILE_NAME.fullmatch(name):
        return None
    return f"/{kind}/{camera}/{name}" if (folder / camera / name).is_file() else None

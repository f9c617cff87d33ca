"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from edge_vad.errors import OutputError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file beside ``path``, sync it and rename it over; OutputError with nothing left behind."""
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written: {error.strerror}; choose another place or free some space") from error


def check_writable(out: Path) -> None:
    """OutputError before minutes of work, not after them."""
    if not out.parent.is_dir():
        raise OutputError(f"{out}: the folder {out.parent} does not exist; create it first")
    if out.is_dir():
        raise OutputError(f"{out}: is a folder; name a file such as {out}/site.evb")
    probe = out.parent / f".{out.name}.probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from error

"""The folder of a training: one process at a time, and what lies in it under which name."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_vad.errors import OutputError
from edge_vad.files import make_folder, writing

LOSSES, RECONSTRUCTIONS = "losses.svg", "reconstructions.png"


@contextmanager
def run_folder(folder: Path) -> Iterator[Path]:
    """The folder, made where it is not there, for this process alone. Raises OutputError when another one trains in it."""
    with writing(folder):
        make_folder(folder)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{folder}: another training is at work there; wait for it, or name another --out") from error
        yield folder
    finally:
        os.close(handle)

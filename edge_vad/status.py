"""The status file of a running unit: one JSON object in memory, replaced every two seconds, read by `edge-vad status`."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_vad.files import read_regular

log = logging.getLogger(__name__)
RUNTIME = Path("/run/edge-vad")
STALE_S = 15.0  # the file is written every two seconds
MAX_BYTES = 2**20


def status_path(runtime: Path, name: str) -> Path | None:
    """Where a unit's status goes: in memory, not on an SD card. None when there is no such place."""
    for folder in (runtime, *_own_folders()):
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK) and (folder == runtime or folder.stat().st_uid == os.getuid()):
            return folder / f"{name}.json"
    log.warning("no place for the status file: edge-vad status will not find this unit")
    return None


def write_status(path: Path, status: dict[str, Any]) -> None:
    """Replace the file in one step; a status that cannot be written is never a reason to stop."""
    beside = path.with_suffix(".new")
    try:
        beside.write_text(json.dumps(status), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        log.debug("%s: %s", path, error)


def remove_status(path: Path) -> None:
    """Take the file away, unless another unit of that name writes it by now."""
    if Found.read(path).status.get("pid") == os.getpid():
        path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Found:
    """A status file. stale: why what it says does not hold any more; empty for a unit that runs."""

    path: Path
    status: dict[str, Any]
    stale: str = ""

    @classmethod
    def read(cls, path: Path) -> Found:
        """The file as it is now."""
        try:
            status = json.loads(read_regular(path, MAX_BYTES))
            age_s = time.monotonic() - float(status["updated_monotonic_s"])
            pid = int(status["pid"])
        except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
            return cls(path, {}, f"it cannot be read ({type(error).__name__})")
        if age_s < -1:
            return cls(path, status, "it is from before the last boot")
        if not _alive(pid):
            return cls(path, status, f"process {pid} is gone; it was not stopped but ended")
        if age_s > STALE_S:
            return cls(path, status, f"process {pid} has not written it for {age_s:.0f} s: it hangs")
        return cls(path, status)


def find_units(runtime: Path | None = None, name: str | None = None) -> list[Found]:
    """The status files of one folder, or of every place where a unit puts its own; by name."""
    found: dict[Path, Found] = {}
    for folder in [runtime] if runtime else _all_folders():
        for path in sorted(folder.glob("*.json")):
            if name in (None, path.stem):
                found.setdefault(path.resolve(), Found.read(path))
    return sorted(found.values(), key=lambda unit: (unit.path.stem, str(unit.path)))


def _own_folders() -> Iterator[Path]:
    """Places that are this user's: those that a service manager made, of the session, of the last resort."""
    yield from (Path(folder) for folder in os.environ.get("RUNTIME_DIRECTORY", "").split(":") if folder)
    if session := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(session) / "edge-vad"
    yield Path(f"/tmp/edge-vad-{os.getuid()}")


def _all_folders() -> list[Path]:
    """Where units of any user may be; those of others may be closed to this one."""
    elsewhere = [(RUNTIME, "*/"), (Path("/run/user"), "*/edge-vad"), (Path("/tmp"), "edge-vad-*")]
    others = [folder for parent, pattern in elsewhere for folder in sorted(parent.glob(pattern))]
    return [RUNTIME, *_own_folders(), *others]


def _alive(pid: int) -> bool:
    try:
        os.kill(max(pid, 1), 0)
    except OSError as error:  # of another user: it is there, and nothing may be sent to it
        return isinstance(error, PermissionError)
    return True

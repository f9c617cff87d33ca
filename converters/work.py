"""The work folder of a build: what is finished lies there, so that a build that was killed goes on where it was."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from edge_vad.converters.engine import Engine
from edge_vad.converters.spill import read
from edge_vad.converters.tasks import Task, files_of

from edge_vad.errors import OutputError
from edge_vad.files import make_folder, write_atomically, writing
from edge_vad.manifest import sha256
from edge_vad.progress import Meter

log = logging.getLogger(__name__)

OWN = re.compile(r"\.?[0-9a-f]{32}\.[\w.]+")  # nothing else in the folder is ever removed


class WorkFolder:
    """A folder that belongs to one build at a time; a context manager.

    It goes when the build is done, or has nothing to show; it stays with every finished task when the build fails.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = -1

    def __enter__(self) -> WorkFolder:
        with writing(self.folder):
            try:
                while self._lock < 0:
                    make_folder(self.folder)
                    self._lock = _lock(self.folder)
            except OSError:
                with contextlib.suppress(OSError):
                    self.folder.rmdir()  # where it is empty
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is not None and any(self.folder.glob("*.json")):
                log.info("what is finished stays in %s; the same command goes on from there", self.folder)
            else:
                self.discard()
        finally:
            os.close(self._lock)

    def discard(self) -> None:
        """Remove what is finished, and the folder, where nothing of others is in it."""
        try:
            for path in self.folder.iterdir():
                if OWN.fullmatch(path.name):
                    path.unlink()
            if not any(self.folder.iterdir()):
                self.folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("%s: cannot be removed: %s; nothing needs it any more", self.folder, error.strerror)

    def store(self, data: bytes, ending: str) -> str:
        """Write a file that is named by its content; returns the name."""
        name = f"{sha256(data)[:32]}.{ending}"
        if not (self.folder / name).exists():
            write_atomically(self.folder / name, data)
        return name

    def receipt(self, task: Task) -> dict[str, Any] | None:
        """What a finished task left; None when it is not finished."""
        try:
            receipt = json.loads((self.folder / task.receipt).read_bytes())
        except (FileNotFoundError, ValueError):  # or a medium that forgets
            return None
        return receipt if all((self.folder / name).exists() for name in files_of(receipt)) else None

    def read(self, name: str) -> bytes:
        """A file of a finished task."""
        return read(self.folder / name)

    def finish(self, tasks: Sequence[Task], engine: Engine, label: str) -> list[Mapping[str, Any]]:
        """Have the tasks done that are not; their receipts, in the order of the tasks."""
        unique = {task.key: task for task in tasks}
        waiting = [task for task in unique.values() if self.receipt(task) is None]
        if len(waiting) < len(unique):
            log.info("%s: %d of %d were finished before", label, len(unique) - len(waiting), len(unique))
        watch = _Watch(list(unique.values()), waiting, label)
        with watch:
            for task in engine.run(waiting, self.folder, watch.moved):
                watch.finished(task)
        return [json.loads(self.read(task.receipt)) for task in tasks]


class _Watch(Meter):
    """The meter of some tasks: in frames, or in tasks where the length of a clip is not known."""

    def __init__(self, tasks: Sequence[Task], waiting: Sequence[Task], label: str) -> None:
        self._in_frames = all(task.weight for task in tasks)
        self._so_far = {task.key: 0 for task in waiting}
        total = sum(self._whole(task) for task in tasks)
        self._sum = total - sum(self._whole(task) for task in waiting)
        super().__init__(label, total, self._sum)

    def moved(self, task: Task, n_frames: int) -> None:
        """So many frames of a task are done; fewer than before where a worker died over it."""
        if self._in_frames:
            self._set(task, min(n_frames, task.weight))

    def finished(self, task: Task) -> None:
        """All of it is done."""
        self._set(task, self._whole(task))

    def _whole(self, task: Task) -> int:
        return task.weight if self._in_frames else 1

    def _set(self, task: Task, count: int) -> None:
        self._sum += count - self._so_far[task.key]
        self._so_far[task.key] = count
        self.show(self._sum)


def _lock(folder: Path) -> int:
    """Held until the process ends, however it ends; -1 when the folder went meanwhile. OutputError when it is taken."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder.is_dir() and os.path.samestat(os.fstat(handle), folder.stat()):
            return handle
    except BlockingIOError as error:
        os.close(handle)
        raise OutputError(
            f"{folder}: another build is at work there; wait for it, or name another folder (--work)"
        ) from error
    except OSError:
        os.close(handle)
        raise
    os.close(handle)
    return -1

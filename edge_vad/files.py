"""Files that are written whole or not at all, and folders that survive a power cut.

Nothing here is durable before its ``fsync``: of a file for its content, of a folder for the names in it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_vad.errors import OutputError


def write_atomically(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write a file beside ``path``, sync it and rename it over; OutputError with nothing left behind."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    with writing(path):
        try:
            remove(beside)  # of a process of the same number that was killed
            write_new(beside, data, mode)
            beside.rename(path)
        except BaseException:
            remove(beside)
            raise
        sync_folder(path.parent)


@contextmanager
def writing(what: Path) -> Iterator[None]:
    """Operating-system errors become an OutputError that names ``what``."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{what}: cannot be written: {error.strerror}; choose another place or free some space") from error


def write_new(path: Path, data: bytes, mode: int = 0o644) -> None:
    """A new file, synced; FileExistsError where there is one already."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """A folder with its parents, each made durable; nothing happens where it is there."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)  # another process may have been faster
        sync_folder(path.parent)


def link_atomically(path: Path, target: str) -> None:
    """Point the symbolic link ``path`` at ``target`` in one step, durably."""
    beside = path.with_name(f".{path.name}.new")
    remove(beside)
    beside.symlink_to(target)
    beside.rename(path)
    sync_folder(path.parent)


def forget_cached(path: Path) -> None:
    """Ask the kernel to drop what it has cached of a synced file, so that the next read comes from the medium."""
    if not hasattr(os, "posix_fadvise"):  # Linux has it
        return
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, a link, or a folder with all that is in it; nothing happens to what is not there (any more)."""
    try:
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
        for inner in sorted(path.iterdir()):
            remove(inner)
        path.rmdir()
    except FileNotFoundError:
        return


def read_regular(path: Path, max_bytes: int, *, follow: bool = False) -> bytes:
    """The content of a regular file of at most ``max_bytes``; through a symbolic link only where ``follow`` says so.

    OSError for everything else: a FIFO or a device would block or never end.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    handle = os.open(path, flags)
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, "not a regular file")
        if status.st_size > max_bytes:
            raise OSError(None, f"{status.st_size} bytes; at most {max_bytes} are read")
        return _read_all(handle, status.st_size)
    finally:
        os.close(handle)


def _read_all(handle: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.read(handle, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


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

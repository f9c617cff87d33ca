"""The event log: JSON lines with a checksum in numbered files, written so that no acknowledged record is ever lost.

    events-00000001.jsonl ... {"camera":"gate","kind":"start",...,"crc":"1a2b3c4d"}

One record is one ``os.write`` on a file opened for appending. A torn tail, left by a power cut, is cut off *before*
anything is appended; a short write is cut back and tried again; alarms are synced before `append` returns.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from edge_vad.errors import OutputError
from edge_vad.files import make_folder, sync_folder
from edge_vad.record import Record

NAME = re.compile(r"events-(\d{8})\.jsonl")
SEGMENT_BYTES = 2**20
MAX_LINE_BYTES = 2**16
LEFT_OUT = "left_out"  # names what a record lost because its line was too long

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC

Position = tuple[int, int]  # number of a file, byte in it: what a reader remembers


class EventLog:
    """The log in one folder; one process writes it (a lock holds others off), any number read it."""

    def __init__(self, folder: Path, quota_bytes: int = 64 * 2**20) -> None:
        """quota_bytes: of all files together; the oldest files go first. Raises OutputError."""
        self.folder = folder
        self._quota = quota_bytes
        self._segment_bytes = min(SEGMENT_BYTES, quota_bytes // 4)  # what a new file pushes out is a part of the past
        self._lock = self._handle = -1
        self._damaged = False
        self._last_seq = 0
        try:
            make_folder(folder)
            self._lock = _lock(folder)
            self._open()
        except OSError as error:
            self._release()
            raise OutputError(f"{folder}: the event log cannot be opened: {error.strerror}") from error

    @property
    def last_seq(self) -> int:
        """Number of the last record; 0 when there is none."""
        return self._last_seq

    @property
    def end(self) -> Position:
        """Where the next record will be: readers that stop here see acknowledged records only. For any thread."""
        return self._end

    def holds(self, position: Position) -> bool:
        """Whether the file of a position is still there."""
        return _path(self.folder, position[0]).exists()

    def append(self, record: Record) -> None:
        """Write a record; it is on the medium when this returns for an alarm. OutputError when it is not in the log.

        After an error nothing of it is there, and it can be appended again.
        """
        line = seal(record.line())
        if len(line) > MAX_LINE_BYTES:
            line = seal(shortened(record).line())
        try:
            self._mend()
            if self._end[1] and self._end[1] + len(line) > self._segment_bytes:
                self._next_file()
            self._write(line, record.alarm)
        except OSError as error:
            raise OutputError(f"{self.folder}: an event could not be written: {error.strerror}") from error
        self._last_seq = max(self._last_seq, record.seq)

    def sync(self) -> None:
        """Bring everything to the medium."""
        try:
            os.fdatasync(self._handle)
        except OSError as error:
            raise OutputError(f"{self.folder}: the event log cannot be synced: {error.strerror}") from error

    def close(self) -> None:
        """Sync and release the file."""
        if self._handle >= 0:
            try:
                self._mend()
                self.sync()
            except OSError as error:
                raise OutputError(f"{self.folder}: the event log cannot be closed: {error.strerror}") from error
            finally:
                self._release()

    def _open(self) -> None:
        numbers = _numbers(self.folder)
        number = numbers[-1] if numbers else 1
        self._handle = os.open(_path(self.folder, number), _FLAGS, 0o644)
        self._end = (number, _repair(self._handle))
        sync_folder(self.folder)
        self._last_seq = _last_seq(self.folder)
        self._keep_quota()

    def _write(self, line: bytes, durable: bool) -> None:
        """All of the line or nothing: a reader must never see half of one followed by another."""
        number, size = self._end
        self._damaged = True
        try:
            if os.write(self._handle, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if durable:
                os.fdatasync(self._handle)
        except OSError:
            with contextlib.suppress(OSError):  # then the next append begins with it
                self._mend()
            raise
        self._end = (number, size + len(line))
        self._damaged = False

    def _mend(self) -> None:
        """Cut off what a failed write left behind."""
        if self._damaged:
            os.ftruncate(self._handle, self._end[1])
            self._damaged = False

    def _next_file(self) -> None:
        os.fdatasync(self._handle)
        number = self._end[0] + 1
        handle = os.open(_path(self.folder, number), _FLAGS, 0o644)
        try:
            sync_folder(self.folder)  # before anything in it is acknowledged
            size = os.fstat(handle).st_size
        except BaseException:
            os.close(handle)
            raise
        os.close(self._handle)
        self._handle, self._end = handle, (number, size)
        self._keep_quota()

    def _keep_quota(self) -> None:
        """Delete the oldest files; what cannot be deleted today waits for the next time, writing goes on."""
        with contextlib.suppress(OSError):
            *older, newest = _numbers(self.folder)
            left = self._quota - max(self._segment_bytes, _path(self.folder, newest).stat().st_size)
            for number in reversed(older):
                path = _path(self.folder, number)
                left -= path.stat().st_size
                if left < 0:
                    path.unlink()

    def _release(self) -> None:
        for handle in (self._handle, self._lock):
            if handle >= 0:
                os.close(handle)
        self._handle = self._lock = -1


def shortened(record: Record) -> Record:
    """The record with as much of its data as a line holds: the longest values go first and are named in ``left_out``.

    A record that could not be written at any time would hold up all that follow.
    """
    names = {key: len(json.dumps(key)) + 2 for key in record.data}
    sizes = {key: len(json.dumps({key: value})) for key, value in record.data.items()}
    room = MAX_LINE_BYTES - len(seal(dataclasses.replace(record, data={LEFT_OUT: []}).line())) - sum(names.values())
    if room < 0:
        return dataclasses.replace(record, data={LEFT_OUT: len(names)})
    kept = {}
    for key in sorted(sizes, key=lambda key: sizes[key]):
        room -= sizes[key] - names[key]
        if room < 0:
            break
        kept[key] = record.data[key]
    return dataclasses.replace(record, data={**kept, LEFT_OUT: [key for key in names if key not in kept]})


def seal(line: str) -> bytes:
    """A line of the log: a JSON object with the checksum of the rest of it as its last key."""
    body = line.encode()
    return body[:-1] + b',"crc":"%08x"}\n' % zlib.crc32(body)


def unseal(line: bytes) -> Record | None:
    """The record of a line of the log; None when the line is damaged."""
    head, mark, tail = line.rstrip(b"\n").rpartition(b',"crc":"')
    body = head + b"}"
    if not mark or tail != b'%08x"}' % zlib.crc32(body):
        return None
    try:
        return Record.parse(json.loads(body))
    except (ValueError, KeyError, TypeError):
        return None


def read(folder: Path, start: Position = (0, 0)) -> Iterator[tuple[Position, Record]]:
    """The records from a position on, each with the position behind it. Damaged lines are left out.

    A position in a file that is gone continues with the oldest one that is there, one within a line with that line.
    OSError when a file cannot be read.
    """
    for number in _numbers(folder):
        if number < start[0]:
            continue
        try:
            with _path(folder, number).open("rb") as file:
                at = _line_start(file, start[1]) if number == start[0] else 0
                file.seek(at)
                while line := file.readline(2 * MAX_LINE_BYTES):
                    if not line.endswith(b"\n") and len(line) < 2 * MAX_LINE_BYTES:
                        break  # being written, or torn
                    at += len(line)
                    record = unseal(line)
                    if record is not None:
                        yield (number, at), record
        except FileNotFoundError:
            continue  # its turn to be deleted came


def _line_start(file: BinaryIO, at: int) -> int:
    """The position itself where a line starts there, otherwise the start of the line that it lies in."""
    at = min(at, os.fstat(file.fileno()).st_size)
    for size in (1, MAX_LINE_BYTES):
        first = max(0, at - size)
        file.seek(first)
        found = file.read(at - first).rfind(b"\n")
        if found >= 0 or first == 0:
            return first + found + 1
    return at


def _last_seq(folder: Path) -> int:
    """The highest number in the newest file that holds any record: the newest may be empty or damaged."""
    for number in reversed(_numbers(folder)):
        found = [record.seq for position, record in read(folder, (number, 0)) if position[0] == number]
        if found:
            return max(found)
    return 0


def _repair(handle: int) -> int:
    """Cut off a torn tail: whatever follows the last whole line. Returns the size that is left."""
    size = whole = os.fstat(handle).st_size
    while whole > 0:
        first = max(0, whole - MAX_LINE_BYTES)
        found = os.pread(handle, whole - first, first).rfind(b"\n")
        if found >= 0:
            whole = first + found + 1
            break
        whole = first
    if whole < size:
        os.ftruncate(handle, whole)
    os.fdatasync(handle)  # what the last process left unsynced is read as written from here on
    return whole


def _lock(folder: Path) -> int:
    """Held as long as the log is open; a second writer would cut off lines of the first."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise OSError(error.errno, "another process is writing it") from error
    except OSError:
        pass  # some network file systems know no locks
    return handle


def _numbers(folder: Path) -> list[int]:
    try:
        found = [NAME.fullmatch(path.name) for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(match[1]) for match in found if match)


def _path(folder: Path, number: int) -> Path:
    return folder / f"events-{number:08d}.jsonl"

"""A disk that loses what was not flushed when the power goes.

``kill -9`` of qemu alone would be kind: everything that the machine had handed to the host stays in the host's cache, as
if no medium ever lost a write. Here every write of a run goes into a log (qemu's blklogwrites, in the format of Linux'
dm-log-writes), and only what lies before the last flush is carried over to the next run.
"""

from __future__ import annotations

import json
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

MAGIC, VERSION = 0x6A736677736872, 1
SUPER, ENTRY = struct.Struct("<QQQI"), struct.Struct("<QQQQ")
FLUSH, FUA, DISCARD = 1, 2, 4


@dataclass(frozen=True)
class Kept:
    """What came of the writes of one run: how many were carried over, and how many bytes of later ones are lost."""

    n_writes: int
    n_flushes: int
    lost_bytes: int


class Disk:
    """A raw image between two runs; during one, its writes go beside it."""

    def __init__(self, path: Path, source: Path) -> None:
        """path: of the copy of ``source`` that this disk is."""
        self.path = path
        self._scratch, self._log = path.with_suffix(".qcow2"), path.with_suffix(".log")
        subprocess.run(["cp", "--sparse=always", "--reflink=auto", str(source), str(path)], check=True)

    def begin(self) -> list[str]:
        """The arguments with which qemu gets it as its first disk."""
        backing = ["-b", str(self.path), "-F", "raw", str(self._scratch)]
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing], check=True)
        self._log.write_bytes(b"")
        # no-flush: the host keeps its power, its page cache is medium enough; discards would be holes in the log.
        cache = {"direct": False, "no-flush": True}
        file = {"driver": "qcow2", "file": {"driver": "file", "filename": str(self._scratch)}, "cache": cache}
        log = {"driver": "raw", "file": {"driver": "file", "filename": str(self._log), "cache": cache}, "cache": cache}
        node = {"driver": "blklogwrites", "node-name": "disk", "file": file, "log": log, "discard": "ignore"}
        return ["-blockdev", json.dumps(node), "-device", "virtio-blk-pci,drive=disk,discard=off,write-zeroes=off"]

    def end(self) -> Kept:
        """After the run, however it ended: carry over what was flushed, forget the rest."""
        with self._log.open("rb") as log, self.path.open("r+b") as disk:
            magic, version, n_entries, sector = SUPER.unpack(log.read(SUPER.size))
            if (magic, version) != (MAGIC, VERSION):
                raise ValueError(f"{self._log}: not a log of writes")
            entries = _entries(log, n_entries, sector)
            flushes = [i for i, (_, _, flags, _) in enumerate(entries) if flags & (FLUSH | FUA)]
            n_kept = flushes[-1] + 1 if flushes else 0
            for at, size, flags, where in entries[:n_kept]:
                if flags & DISCARD:
                    raise ValueError(f"{self._log}: a discard, which the machine must not send")
                log.seek(where)
                disk.seek(at)
                disk.write(log.read(size))
            end = entries[n_kept - 1][3] + entries[n_kept - 1][1] if n_kept else sector
            lost = self._log.stat().st_size - end
        for path in (self._log, self._scratch):
            path.unlink()
        return Kept(n_kept, len(flushes), lost)


def _entries(log, n_entries: int, sector: int) -> list[tuple[int, int, int, int]]:  # type: ignore[no-untyped-def]
    """Of each write its byte on the disk, its size, its flags, and where in the log its bytes lie."""
    found, at = [], sector
    for _ in range(n_entries):
        log.seek(at)
        first, n_sectors, flags, _ = ENTRY.unpack(log.read(ENTRY.size))
        found.append((first * sector, n_sectors * sector, flags, at + sector))
        at += sector * (1 + (0 if flags & DISCARD else n_sectors))
    return found

"""Features of frames as files, so that footage may be longer than memory: written piece by piece, read part by part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np

from edge_vad import tensorfile
from edge_vad.errors import OutputError
from edge_vad.files import write_atomically
from edge_vad.streams import FrameFeatures, LocalFeatures
from edge_vad.types import Float32

MIB = 2**20
PIECE_BYTES = 8 * MIB  # features that are held until they are written
PART_BYTES = 64 * MIB  # a part is the most that is held at once; one that takes more is halved
FRAME_BYTES = 4096  # what the objects of a frame take, however few regions it has
MIN_PART_FRAMES = 40

Piece = tuple[str, int, int]  # file name, and its frames of the clip: first, and the one behind the last


class Spool:
    """Takes the features of a clip frame by frame and writes them in pieces.

    sizes: bytes that each frame takes; pieces: what was written, in order.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key
        self._held: list[tuple[float, FrameFeatures]] = []
        self._held_bytes = 0
        self.sizes: list[int] = []
        self.pieces: list[Piece] = []

    def add(self, timestamp: float, features: FrameFeatures) -> None:
        """The next frame. Raises OutputError when the disk is full."""
        self._held.append((timestamp, features))
        self.sizes.append(size_of(features))
        self._held_bytes += self.sizes[-1]
        if self._held_bytes >= PIECE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        if not self._held:
            return
        name = f"{self._key}.{len(self.pieces):05d}.piece"
        write_atomically(self._folder / name, pack(self._held))
        self.pieces.append((name, len(self.sizes) - len(self._held), len(self.sizes)))
        self._held, self._held_bytes = [], 0


def size_of(features: FrameFeatures) -> int:
    """Bytes that a frame takes, about."""
    arrays = [array for local in features.local.values() for array in (local.boxes, local.speed, *local.rows.values())]
    return FRAME_BYTES + sum(array.nbytes for array in arrays)


def cut(sizes: Sequence[int], stride: int, n_wanted: int) -> list[tuple[int, int]]:
    """Parts of a clip whose processed frames take ``sizes``: (first frame, the one behind the last).

    As many parts as wanted, where each has MIN_PART_FRAMES frames of footage; one that takes over PART_BYTES is halved.
    Nothing but the clip decides, so that every machine cuts it alike.
    """
    n_cuts = max(1, min(n_wanted, len(sizes) * stride // MIN_PART_FRAMES))
    lengths = [len(piece) for piece in np.array_split(np.empty(len(sizes), dtype=bool), n_cuts)]
    ends = [0, *accumulate(sizes)]
    return [half for part in pairwise(accumulate(lengths, initial=0)) for half in _halved(ends, *part)]


def _halved(ends: Sequence[int], start: int, stop: int) -> list[tuple[int, int]]:
    if ends[stop] - ends[start] <= PART_BYTES or stop - start < 2:
        return [(start, stop)]
    middle = (start + stop) // 2
    return [*_halved(ends, start, middle), *_halved(ends, middle, stop)]


def read_frames(folder: Path, pieces: Iterable[Piece], start: int, stop: int) -> Iterator[tuple[float, FrameFeatures]]:
    """Timestamps and features of the frames from ``start`` to before ``stop``; one piece is held at a time."""
    for name, first, end in pieces:
        if first < stop and start < end:
            for i, frame in enumerate(unpack(read(folder / name), name), first):
                if start <= i < stop:
                    yield frame


def read(path: Path) -> bytes:
    """A file of the work folder; OutputError when somebody took it away."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise OutputError(f"{path}: cannot be read back: {error.strerror}; start the build again") from error


def pack(frames: Sequence[tuple[float, FrameFeatures]]) -> bytes:
    """Timestamps (seconds) and features of frames as one file, without the times that they took."""
    arrays = {"times": np.array([timestamp for timestamp, _ in frames], dtype=np.float64)}
    for prefix in frames[0][1].local:
        packed = _pack_local([features.local[prefix] for _, features in frames])
        arrays |= {f"{prefix}local.{name}": array for name, array in packed.items()}
    rows = {i: features.highlevel for i, (_, features) in enumerate(frames) if features.highlevel is not None}
    if rows:
        arrays |= {"highlevel": np.stack(list(rows.values())), "highlevel.frames": np.array(list(rows))}
    return tensorfile.save(arrays, {})


def _pack_local(stream: Sequence[LocalFeatures]) -> dict[str, np.ndarray]:
    """One array per field, all regions behind each other; a frame without regions adds nothing."""
    counts = np.array([len(local.boxes) for local in stream], dtype=np.int64)
    seen = [local for local, n in zip(stream, counts, strict=True) if n] or [stream[0]]
    return {
        "counts": counts,
        "known": np.array([local.known for local in stream], dtype=bool),
        **{name: np.concatenate([getattr(local, name) for local in seen]) for name in _FIELDS},
        **{f"rows.{kind}": np.concatenate([local.rows[kind] for local in seen]) for kind in seen[0].rows},
    }


_FIELDS = ("boxes", "confidence", "age", "continued", "speed")


def unpack(data: bytes, where: str) -> list[tuple[float, FrameFeatures]]:
    """What `pack` wrote. Raises BundleFormatError when the file is damaged."""
    arrays, _ = tensorfile.load(data, where)
    times = arrays["times"].tolist()
    streams = {
        name.removesuffix("local.counts"): _unpack_local(arrays, name.removesuffix("counts"))
        for name in sorted(arrays)  # the empty prefix first, as the extractor has it
        if name.endswith("local.counts")
    }
    highlevel: list[Float32 | None] = [None] * len(times)
    for i, row in zip(arrays.get("highlevel.frames", ()), arrays.get("highlevel", ()), strict=True):
        highlevel[int(i)] = row
    return [
        (timestamp, FrameFeatures({prefix: stream[i] for prefix, stream in streams.items()}, highlevel[i], {}))
        for i, timestamp in enumerate(times)
    ]


def _unpack_local(arrays: dict[str, np.ndarray], prefix: str) -> list[LocalFeatures]:
    fields = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    rows = {name.removeprefix("rows."): array for name, array in fields.items() if name.startswith("rows.")}
    found = []
    start = 0
    for count, known in zip(fields["counts"].tolist(), fields["known"].tolist(), strict=True):
        part = slice(start, start + count)
        boxes, confidence, age, continued, speed = (fields[name][part] for name in _FIELDS)
        kept = {kind: array[part] for kind, array in rows.items()} if count else {}
        found.append(LocalFeatures(boxes, confidence, age, known, continued, speed, kept))
        start += count
    return found

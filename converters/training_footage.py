"""Normal footage as small pictures in one memory-mapped file, and the windows of them that a network trains on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice, pairwise
from pathlib import Path

import numpy as np
from edge_vad.converters.normal_footage import inspect_footage
from edge_vad.converters.tasks import identity
from numpy.typing import NDArray

from edge_vad.cameras import open_camera
from edge_vad.errors import SourceError
from edge_vad.files import remove, write_atomically, writing
from edge_vad.footage import Clip
from edge_vad.manifest import canonical_json, sha256
from edge_vad.networks import picture
from edge_vad.progress import Meter
from edge_vad.types import UInt8

PICTURES, RECEIPT = "pictures.raw", "pictures.json"
RATE = 10 / 3  # frames of a window per second, about, where no stride is named: what walks moves by half its width
PHASES = 3  # windows begin so many times as often as their frames lie apart
MANY_CLIPS, EVERY, TAIL = 4, 5, 0.2

Span = tuple[str, int, int]  # name of a clip, and its frames: first, and the one behind the last
Starts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TrainingFootage:
    """The kept frames of all clips, and where windows of ``n_frames`` of them begin.

    pictures: (n, h, w, 3) uint8 RGB, memory-mapped, clip after clip: every ``step``-th frame of the footage. image_size:
    (width, height) of the footage. fps: its frames per second. stride: frames of the footage from one frame of a window to
    the next, a multiple of step. held_out: what is never trained on, in frames of the footage.
    starts, held_out_starts: rows of ``pictures`` where a window may begin; none crosses from one clip, or from what is
    held out, into another. content: hash of the footage's names and sizes and of what was made of it.
    """

    pictures: UInt8
    n_frames: int
    image_size: tuple[int, int]
    fps: float
    step: int
    stride: int
    held_out: tuple[Span, ...]
    starts: Starts
    held_out_starts: Starts
    content: str

    def windows(self, starts: Starts) -> UInt8:
        """The windows that begin there: (b, n_frames, h, w, 3) uint8, oldest frame first."""
        apart = self.stride // self.step
        return np.stack([self.pictures[start : start + self.n_frames * apart : apart] for start in starts])


def open_footage(
    clips: Sequence[Clip],
    folder: Path,
    size: tuple[int, int],
    n_frames: int,
    stride: int | None = None,
    fps: float | None = None,
) -> TrainingFootage:
    """The pictures of the clips in ``folder``, read anew unless they lie there already.

    size: (width, height) of the pictures; n_frames: of a window; stride: between them, by default about RATE a second; fps:
    of footage that does not say. Raises SourceError, and OutputError when the disk is full.
    """
    clips = distinct(clips)
    image_size, found_fps, _ = inspect_footage(clips, fps)
    stride = stride or max(1, round(found_fps / RATE))
    step = next(step for step in range(max(1, stride // PHASES), 0, -1) if stride % step == 0)
    length_of_window = (n_frames - 1) * (stride // step) + 1
    identities = [identity(clip.path) for clip in clips]
    made_of = [[clip.name, content] for clip, (content, _) in zip(clips, identities, strict=True)]
    content = sha256(canonical_json([made_of, size, step, fps]))
    key = sha256(canonical_json([content, [dates for _, dates in identities]]))
    lengths = _kept(folder, key, size)
    if lengths is None:
        lengths = _keep(clips, folder, key, size, step, fps)
        if [identity(clip.path) for clip in clips] != identities:
            remove(folder / RECEIPT)
            raise SourceError("the footage changed while it was read; start again when it is complete")
    for clip, length in zip(clips, lengths, strict=True):
        if length < 2 * length_of_window:
            raise SourceError(
                f"{clip.path}: {length * step} frames; training at stride {stride} needs at least "
                f"{2 * length_of_window * step} of every clip: leave the clip out, or lower --stride"
            )
    held = held_out(lengths, length_of_window)
    rows = list(pairwise(accumulate(lengths, initial=0)))
    stops = {number: start for number, start, _ in held}  # trained on are the frames before what is held out
    trained = [(first, first + stops.get(i, stop - first)) for i, (first, stop) in enumerate(rows)]
    return TrainingFootage(
        pictures=np.memmap(folder / PICTURES, np.uint8, "r", shape=(sum(lengths), size[1], size[0], 3)),
        n_frames=n_frames,
        image_size=image_size,
        fps=found_fps,
        step=step,
        stride=stride,
        held_out=tuple((clips[i].name, start * step, stop * step) for i, start, stop in held),
        starts=_starts(trained, length_of_window),
        held_out_starts=_starts([(rows[i][0] + start, rows[i][0] + stop) for i, start, stop in held], length_of_window),
        content=content,
    )


def distinct(clips: Sequence[Clip]) -> list[Clip]:
    """The clips under names of their own: what is held out is known by its name."""
    seen: dict[str, int] = {}
    named = []
    for clip in clips:
        seen[clip.name] = seen.get(clip.name, 0) + 1
        named.append(clip if seen[clip.name] == 1 else Clip(f"{clip.name}-{seen[clip.name]}", clip.path))
    return named


def held_out(lengths: Sequence[int], window: int) -> list[tuple[int, int, int]]:
    """What calibration may use and training not: (number of the clip, first kept frame, the one behind the last).

    Of MANY_CLIPS and more every EVERY-th clip, evenly spread, at least one; of fewer the end of every clip.
    """
    n = len(lengths)
    if n >= MANY_CLIPS:
        n_held = max(1, n // EVERY)
        return [(i, 0, lengths[i]) for i in ((2 * k + 1) * n // (2 * n_held) for k in range(n_held))]
    return [(i, length - max(window, round(TAIL * length)), length) for i, length in enumerate(lengths)]


def _starts(spans: Iterable[tuple[int, int]], window: int) -> Starts:
    return np.concatenate([np.arange(start, stop - window + 1, dtype=np.int64) for start, stop in spans])


def _kept(folder: Path, key: str, size: tuple[int, int]) -> list[int] | None:
    """Kept frames of every clip, where the pictures of that key lie in the folder, complete."""
    try:
        receipt = json.loads((folder / RECEIPT).read_bytes())
        n_bytes = (folder / PICTURES).stat().st_size
        lengths = [int(length) for length in receipt["lengths"]]
    except (OSError, ValueError, KeyError, TypeError):  # none, or a medium that forgets: read the footage again
        return None
    return lengths if receipt.get("key") == key and n_bytes == sum(lengths) * size[0] * size[1] * 3 else None


def _keep(clips: Sequence[Clip], folder: Path, key: str, size: tuple[int, int], step: int, fps: float | None) -> list[int]:
    """Write every stride-th frame of the clips as a picture; the receipt comes last."""
    lengths = []
    remove(folder / RECEIPT)
    with Meter("read footage") as meter, writing(folder / PICTURES), (folder / PICTURES).open("wb") as file:
        for clip in clips:
            lengths.append(0)
            with open_camera(clip.path, fps) as camera:
                for frame in islice(camera.frames(), 0, None, step):
                    file.write(np.ascontiguousarray(picture(frame.image, size)).data)
                    lengths[-1] += 1
                    meter.show(sum(lengths))
        file.flush()
        os.fsync(file.fileno())
    write_atomically(folder / RECEIPT, canonical_json({"key": key, "lengths": lengths}))
    return lengths

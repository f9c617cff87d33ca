"""A trained network on a live stream: frames in, errors of its pictures out; shared by training, conversion and runtime."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edge_vad.backends.base import Backend, checked_output
from edge_vad.errors import BackendError
from edge_vad.memory_read import Memories, MemoryRead
from edge_vad.patches import Patches
from edge_vad.sampling import decimate, resize
from edge_vad.strict import check_range
from edge_vad.types import Float32, UInt8

FRAMES = "frames"  # the input of every network: (n, n_frames, 3, h, w) float32 in -1..1
CHANGE = "change"  # the error of how much drawn frames change, beside those of the outputs


@dataclass(frozen=True, slots=True)
class Target:
    """What an output of a network should have been: the frames start..stop of its window, or the RGB difference to those
    before them, or its size (change). power: of the error, 1 or 2. newest: so many of those frames count in a score, 0 for
    all."""

    start: int
    stop: int
    kind: Literal["frames", "difference", "change"] = "frames"
    power: int = 2
    newest: int = 0

    def __post_init__(self) -> None:
        check_range(0 if self.kind == "frames" else 1, 255, start=self.start)
        check_range(self.start + 1, 256, stop=self.stop)
        check_range(1, 2, power=self.power)
        check_range(0, self.stop - self.start, newest=self.newest)

    def of(self, frames: Any) -> Any:
        """Frames (b, n, 3, h, w) of any array library -> (b, stop - start, 3, h, w)."""
        wanted = frames[:, self.start : self.stop]
        if self.kind == "frames":
            return wanted
        difference = wanted - frames[:, self.start - 1 : self.stop - 1]
        return abs(difference) if self.kind == "change" else difference


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """What decides what a network's errors mean; ``preprocessing.json`` of its bundle.

    image_size: (width, height) of the camera's pictures; size: of the network's. stride: camera frames per processed
    frame. n_frames: of a window. every: processed frames per run of the network. targets: outputs that are pictures;
    odds: outputs that say of every place how likely it is not normal; values: the same in one number per window.
    patches: None scores whole frames. means: mean patch error of the outputs on normal footage, which brings them to one
    scale. share: of the appearance in a fused score.
    change_of: the output whose frames are also scored by how much they change, as CHANGE.
    less: what a change counts that is smaller than it should be, where a larger one counts 1.
    memories: those that a bank searches; none where they lie in the network's graph.
    """

    image_size: tuple[int, int]
    size: tuple[int, int]
    fps: float
    stride: int
    n_frames: int
    targets: dict[str, Target]
    odds: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    every: int = 1
    patches: Patches | None = None
    means: dict[str, float] = field(default_factory=dict)
    share: float = 0.25
    change_of: str | None = None
    less: float = 1.0
    memories: dict[str, MemoryRead] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_range(16, 16384, image_width=self.image_size[0], image_height=self.image_size[1])
        check_range(8, 4096, width=self.size[0], height=self.size[1])
        check_range(1e-3, 1e3, fps=self.fps)
        check_range(1, 1000, stride=self.stride, every=self.every)
        check_range(1, 64, n_frames=self.n_frames)
        check_range(0, 1, share=self.share, less=self.less)
        check_range(1e-12, 1e6, **self.means)
        for name, target in self.targets.items():
            if target.stop > self.n_frames:
                raise ValueError(f"targets.{name}: frame {target.stop} of a window of {self.n_frames}")
        if self.change_of is not None:
            drawn = self.targets.get(self.change_of)
            if drawn is None or drawn.kind != "frames" or drawn.start < 1:
                raise ValueError(f"change_of: {self.change_of!r} is no output that draws frames behind others")

    @property
    def scored(self) -> set[str]:
        """What `patch_errors` gives."""
        return {*self.targets, *self.odds} | ({CHANGE} if self.change_of else set())

    @property
    def period_s(self) -> float:
        """Seconds between two processed frames."""
        return self.stride / self.fps


def picture(image: UInt8, size: tuple[int, int]) -> UInt8:
    """What a network sees of an image (H, W, 3) uint8: (h, w, 3) uint8 of ``size`` (width, height).

    Means over whole blocks first: single pixels picked out of a large picture would flicker.
    """
    factor = max(1, min(round(image.shape[1] / size[0]), round(image.shape[0] / size[1])))
    return resize(decimate(image, factor), *size)


def planes(image: UInt8) -> Float32:
    """A picture (h, w, 3) uint8 as the network takes it: (3, h, w) float32 in -1..1."""
    scaled = image.transpose(2, 0, 1) * np.float32(1 / 127.5)
    scaled -= np.float32(1)
    return np.asarray(scaled, dtype=np.float32)


class Window:
    """The last frames of a stream, as a network takes them."""

    def __init__(self, settings: NetworkSettings) -> None:
        self._settings = settings
        self._frames: deque[Float32] = deque(maxlen=settings.n_frames)

    def reset(self) -> None:
        """Forget them."""
        self._frames.clear()

    def add(self, image: UInt8) -> Float32 | None:
        """With one more frame (H, W, 3) uint8: the window (1, n, 3, h, w), or None while there are too few."""
        self._frames.append(planes(picture(image, self._settings.size)))
        if len(self._frames) < self._settings.n_frames:
            return None
        return np.stack(self._frames)[None]


class Network:
    """One network: windows in, outputs by name out.

    memories: None where the network is one graph; else what runs behind the session's.
    """

    def __init__(self, session: Backend, settings: NetworkSettings, memories: Memories | None = None) -> None:
        """Raises BackendError where the network has not the outputs that the settings name."""
        self._session = session
        self._settings = settings
        self.memories = memories
        missing = {*settings.targets, *settings.odds, *settings.values} - set((memories or session).outputs)
        if missing:
            raise BackendError(f"the network has no output {sorted(missing)[0]!r}; build the bundle again")

    def __call__(self, window: Float32) -> dict[str, Float32]:
        """Pictures (k, 3, h, w) float32 by name, odds (rows, columns) and values (1,), for a window (1, n, 3, h, w)."""
        outputs = self._session.run({FRAMES: window})
        if self.memories:
            outputs = self.memories(outputs)
        found = {name: checked_output(outputs, name, 5)[0] for name in self._settings.targets}
        for name, target in self._settings.targets.items():
            wanted = (target.stop - target.start, *window.shape[2:])
            if found[name].shape != wanted:
                raise BackendError(
                    f"the network gives {found[name].shape} as {name!r}, not {wanted}; build the bundle again"
                )
        found |= {name: checked_output(outputs, name, 4)[0, 0] for name in self._settings.odds}
        return found | {name: checked_output(outputs, name, 2)[0, :1] for name in self._settings.values}


def patch_errors(settings: NetworkSettings, window: Float32, found: Mapping[str, Float32]) -> dict[str, Float32]:
    """How far the pictures are off in every patch, by output: (rows, columns) float32, mean over frames and channels.

    Of frames and differences the mean of |error|^power. Of a change the size of the mean error: how much more moves there
    than should, or less, which counts ``less``, whichever contour it is of; pixel by pixel, contours a little out of place
    would drown that.
    CHANGE is that of how much drawn frames differ from the real ones before them. Odds are their own errors.
    """
    patches = settings.patches or Patches(*settings.size, *settings.size)
    scores = {}
    for name, target in settings.targets.items():
        off = (target.of(window)[0] - found[name])[-target.newest :]  # 0: all
        if name == settings.change_of:
            scores[CHANGE] = _one_sided(_change_error(target, patches, window[0], found[name]), settings.less)
        if target.kind == "change":
            scores[name] = _one_sided(patches.means(off.mean(axis=(0, 1))), settings.less) ** target.power
        else:
            np.abs(off, out=off) if target.power == 1 else np.square(off, out=off)
            scores[name] = np.maximum(patches.means(off.mean(axis=(0, 1))), 0)  # rounding
    for name in settings.odds:
        scores[name] = np.maximum(patches.means(_on_pixels(found[name], settings.size)), 0)
    return scores


def _change_error(target: Target, patches: Patches, frames: Float32, found: Float32) -> Float32:
    """How much more real frames differ from those before them than drawn ones (k, 3, h, w): (rows, columns), of any sign."""
    before = frames[target.start - 1 : target.stop - 1]
    off = np.abs(frames[target.start : target.stop] - before)
    off -= np.abs(found - before)
    means: Float32 = patches.means(off[-target.newest :].mean(axis=(0, 1)))
    return means


def _on_pixels(places: Float32, size: tuple[int, int]) -> Float32:
    """A map (rows, columns) over a picture of ``size`` (width, height), every pixel with the value of its cell: (h, w)."""
    row, column = (np.arange(n) * m // n for n, m in zip(size[::-1], places.shape, strict=True))
    return places[row[:, None], column]


def _one_sided(off: Float32, less: float) -> Float32:
    """The size of errors of either sign, the negative ones times ``less``."""
    return np.where(off < 0, np.float32(-less), np.float32(1)) * off

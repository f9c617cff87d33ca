"""A generated street with people and, now and then, an anomaly: footage with exact truth, and no camera needed."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_vad.cameras._street.drawing import Pose, Sprite, figure, shadow
from edge_vad.cameras._street.figures import furniture, random_look
from edge_vad.cameras._street.scene import VIEWS, Ground, paint_street, wave
from edge_vad.cameras._street.traffic import ANOMALIES, GAP_S, Actor, Traffic
from edge_vad.cameras.base import Camera
from edge_vad.errors import OutputError, SourceError, did_you_mean
from edge_vad.plugins import require
from edge_vad.types import Frame, UInt8

__all__ = ["ANOMALIES", "Options", "SyntheticStreet", "Truth", "luma_of", "parse", "write_dataset"]

Mask = NDArray[np.bool_]

MIN_VISIBLE = 1 / 4000  # of the picture's pixels: an actor that shows fewer is not there yet, for truth
NOISE_LIMIT = 8  # grey levels
JPEG_QUALITY = 90


@dataclass(frozen=True, slots=True)
class Truth:
    """One anomalous actor in one frame. box: (x0, y0, x1, y1) of its visible pixels, x1 and y1 exclusive."""

    kind: str
    box: tuple[int, int, int, int]
    n_pixels: int


@dataclass(frozen=True, slots=True)
class Options:
    """What stands behind ``synthetic:``; see `SyntheticStreet`."""

    seed: int = 0
    seconds: float | None = None
    anomalies: tuple[str, ...] = ANOMALIES
    size: tuple[int, int] = (360, 240)
    view: int = 0
    fps: float = 10.0
    grey: bool = False


class SyntheticStreet(Camera):
    """A generated street: ``synthetic:seed=7,seconds=60,anomalies=cyclist+cart,size=360x240,view=0,fps=10,grey=0``.

    Every key may be left out. Without ``seconds`` it never ends and keeps to its frame rate as a live camera does; with
    it, it runs as fast as it can. ``anomalies`` are ``all`` (each kind from time to time), ``none``, or kinds joined by
    ``+``: cyclist, runner, cart, against (a direction that nobody else takes), skater, object (left behind). ``view``
    is one of five fixed cameras (0..4); its street looks the same under every seed, only the traffic differs.
    The same location gives the same bytes on every machine. A wrong key or value is a SourceError.
    """

    def __init__(self, location: str = "", fps: float | None = None, size: tuple[int, int] | None = None) -> None:
        options = parse(location)
        self.fps = fps or options.fps
        self.n_frames = None if options.seconds is None else max(1, round(options.seconds * self.fps))
        self._options, self._view = options, VIEWS[options.view]
        self._ground = Ground.of(self._view, options.size)
        first_gap = GAP_S[1] if options.seconds is None else options.seconds / 4
        self._traffic = Traffic(self._view, self._ground, options.seed, options.anomalies, first_gap)
        self._empty = paint_street(self._view, options.size, options.view)
        self._furniture = self._place_furniture()
        self._noise = self._make_noise()

    def frames(self) -> Iterator[Frame]:
        """Yield the frames in order."""
        started = time.monotonic()
        for index in itertools.count() if self.n_frames is None else range(self.n_frames):
            frame = self.frame(index)
            if self.n_frames is None:
                time.sleep(max(0.0, started + frame.timestamp - time.monotonic()))
                frame = replace(frame, timestamp=started + frame.timestamp)
            yield frame

    @classmethod
    def is_live(cls, location: str) -> bool:
        return parse(location).seconds is None

    def frame(self, index: int) -> Frame:
        """Any one frame of the stream."""
        picture = self._empty.copy()
        t = index / self.fps
        poses = self._poses(t)
        for _, pose in poses:
            cast = shadow(pose, self._view, self._ground)
            if cast is not None:
                cast.paint(picture)
        for _, sprite in self._sprites(poses):
            sprite.paint(picture)
        image = self._expose(picture, index)
        luma = luma_of(image)
        if self._options.grey:
            image = np.repeat(luma[..., None], 3, axis=2)
        return Frame(image=image, luma=luma, timestamp=t, index=index)

    def truth(self, index: int) -> list[Truth]:
        """The anomalous actors that frame ``index`` shows, largest first."""
        found = [Truth(kind, _box(pixels), int(np.count_nonzero(pixels))) for kind, pixels in self._visible(index)]
        return sorted(found, key=lambda one: -one.n_pixels)

    def mask(self, index: int) -> Mask:
        """(H, W) bool: the pixels of frame ``index`` that show anomalous actors."""
        width, height = self._options.size
        mask = np.zeros((height, width), np.bool_)
        for _, pixels in self._visible(index):
            mask |= pixels
        return mask

    def labels(self) -> list[list[int]]:
        """The anomalous stretches of a bounded stream as [first, last] frames, counted from 1, both inclusive."""
        if self.n_frames is None:
            raise ValueError("an endless stream has no labels; state seconds=")
        marked = np.array([False, *(bool(self._visible(index)) for index in range(self.n_frames)), False])
        edges = np.flatnonzero(marked[1:] != marked[:-1])
        return [[int(first) + 1, int(end)] for first, end in zip(edges[::2], edges[1::2], strict=True)]

    def _poses(self, t: float) -> list[tuple[Actor, Pose]]:
        return [(actor, actor.pose(t)) for actor in self._traffic.actors(t)]

    def _sprites(self, poses: list[tuple[Actor, Pose]]) -> list[tuple[Actor | None, Sprite]]:
        """All figures of the picture, the farthest first; furniture has no actor."""
        drawn: list[tuple[float, Actor | None, Sprite]] = [(z, None, sprite) for z, sprite in self._furniture]
        for actor, pose in poses:
            sprite = figure(pose, self._view, self._ground)
            if sprite is not None:
                drawn.append((pose.place[1], actor, sprite))
        return [(actor, sprite) for _, actor, sprite in sorted(drawn, key=lambda entry: -entry[0])]

    def _visible(self, index: int) -> list[tuple[str, Mask]]:
        """(kind, pixels (H, W) bool) of each anomalous actor that shows enough of itself."""
        poses = self._poses(index / self.fps)
        if not any(actor.anomaly for actor, _ in poses):
            return []
        width, height = self._options.size
        shown = np.full((height, width), -1, np.int16)
        actors = []
        for number, (actor, sprite) in enumerate(self._sprites(poses)):
            shown[sprite.window][sprite.solid()] = number
            if actor is not None and actor.anomaly:
                actors.append((number, actor.anomaly))
        masks = [(kind, shown == number) for number, kind in actors]
        return [(kind, mask) for kind, mask in masks if np.count_nonzero(mask) >= MIN_VISIBLE * width * height]

    def _place_furniture(self) -> list[tuple[float, Sprite]]:
        """What always stands there, as (distance, sprite); its shadows become part of the empty street."""
        rng = np.random.Generator(np.random.PCG64([11, self._options.view]))
        placed = []
        for kind, s, q in self._view.furniture:
            pose = Pose(furniture(kind, rng), self._ground.world(s, q), (1.0, 0.0), random_look(rng).pattern)
            cast, sprite = shadow(pose, self._view, self._ground), figure(pose, self._view, self._ground)
            if cast is not None:
                cast.paint(self._empty)
            if sprite is not None:
                placed.append((pose.place[1], sprite))
        return placed

    def _make_noise(self) -> NDArray[np.int8]:
        """A stock of sensor noise; each frame takes a piece of it that starts elsewhere."""
        rng = np.random.Generator(np.random.PCG64([self._options.seed, 4]))
        raw = rng.integers(-128, 128, (4, self._empty.size + 65536), np.int8).astype(np.int16)
        fine = (raw[0] + raw[1] + raw[2] + raw[3]).astype(np.float32)  # standard deviation 148
        fine[3:] += fine[:-3].copy()  # neighbours of a colour sensor share some of their noise
        noise: NDArray[np.float32] = np.clip(np.rint(fine * (self._view.noise / 209)), -NOISE_LIMIT, NOISE_LIMIT)
        return noise.astype(np.int8)

    def _expose(self, picture: UInt8, index: int) -> UInt8:
        """The picture under slowly changing light, with sensor noise."""
        t = index / self.fps + 3.7 * self._options.seed
        gain = int(256 * (0.955 + 0.03 * wave(t / 53) + 0.012 * wave(t / 17)))
        lit = picture.astype(np.uint16)
        lit *= np.uint16(gain)
        lit >>= 8
        np.clip(lit, NOISE_LIMIT, 255 - NOISE_LIMIT, out=lit)  # the noise cannot overflow
        start = (index * 40503 + 12289 * self._options.seed) % 65536
        exposed = lit.astype(np.uint8)
        exposed += self._noise[start : start + picture.size].reshape(picture.shape).view(np.uint8)
        return exposed


def luma_of(image: UInt8) -> UInt8:
    """(H, W) uint8 luma (BT.601) of an (H, W, 3) RGB image, in the integers that OpenCV uses."""
    wide = image.astype(np.uint32)
    return ((wide[..., 0] * 9798 + wide[..., 1] * 19235 + wide[..., 2] * 3735 + 16384) >> 15).astype(np.uint8)


def parse(location: str) -> Options:
    """The options in ``key=value,key=value``. Raises SourceError with the nearest key for one that does not exist."""
    values: dict[str, Any] = {}
    for item in filter(None, (piece.strip() for piece in location.split(","))):
        key, _, text = (part.strip() for part in item.partition("="))
        if key not in _READ:
            raise SourceError(f"synthetic: no option {key!r}{did_you_mean(key, _READ)}")
        read, wanted = _READ[key]
        try:
            values[key] = read(text)
        except ValueError:
            raise SourceError(f"synthetic: {item!r}: {key} is {wanted}") from None
    return Options(**values)


def _anomalies(text: str) -> tuple[str, ...]:
    if text in ("all", "none"):
        return ANOMALIES if text == "all" else ()
    kinds = text.split("+")
    for kind in kinds:
        if kind not in ANOMALIES:
            raise SourceError(f"synthetic: no anomaly {kind!r}{did_you_mean(kind, (*ANOMALIES, 'all', 'none'))}")
    return tuple(dict.fromkeys(kinds))


def _size(text: str) -> tuple[int, int]:
    width, height = (int(_within(64, 4096)(side)) for side in text.split("x"))
    if not height <= width <= 2 * height:
        raise ValueError(text)  # the views show little of their street otherwise
    return width, height


def _within(low: float, high: float, whole: bool = True) -> Callable[[str], float]:
    def read(text: str) -> float:
        value: float = int(text) if whole else float(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


_READ: dict[str, tuple[Callable[[str], Any], str]] = {
    "seed": (_within(0, 2**32), "a whole number from 0"),
    "seconds": (_within(0.1, 1e6, whole=False), "a length in seconds, such as 60"),
    "anomalies": (_anomalies, "all, none, or kinds joined by +"),
    "size": (_size, "WIDTHxHEIGHT, such as 360x240: 64 to 4096 pixels, from square to twice as wide as high"),
    "view": (_within(0, len(VIEWS) - 1), f"a number from 0 to {len(VIEWS) - 1}"),
    "fps": (_within(0.1, 240, whole=False), "a frame rate from 0.1 to 240"),
    "grey": (lambda text: bool(_within(0, 1)(text)), "0 or 1"),
}
assert list(_READ) == [field.name for field in fields(Options)]


def _box(pixels: Mask) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def write_dataset(
    folder: Path,
    *,
    seed: int = 0,
    view: int = 0,
    n_training: int = 4,
    n_testing: int = 6,
    seconds: float = 18.0,
    size: tuple[int, int] = (360, 240),
    fps: float = 10.0,
) -> dict[str, Any]:
    """Write a small benchmark in the layout of the public ones, and return its labels.

    ``training/frames/01/000.jpg`` ... shows normal traffic; ``testing/frames/01/000.jpg`` ... one kind of anomaly per
    clip, in turn, with ``testing/masks/01/000.png`` (1 bit, exact pixels) and ``labels.json``:
    ``{"01": {"frames": 180, "anomalous_1based": [[61, 180]], "anomalies": ["cyclist"]}}``.
    Raises OutputError when the folder holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise OutputError(f"{folder}: not empty; name a new folder")
    common = f"seconds={seconds},size={size[0]}x{size[1]},view={view},fps={fps}"
    for number in range(n_training):
        street = SyntheticStreet(f"seed={1000 * seed + number},anomalies=none,{common}")
        _write_clip(folder / "training", f"{number + 1:02d}", street, masks=False)
    labels = {}
    for number in range(n_testing):
        kind = ANOMALIES[number % len(ANOMALIES)]
        street = SyntheticStreet(f"seed={1000 * seed + 500 + number},anomalies={kind},{common}")
        name = f"{number + 1:02d}"
        _write_clip(folder / "testing", name, street, masks=True)
        labels[name] = {"frames": street.n_frames, "anomalous_1based": street.labels(), "anomalies": [kind]}
    (folder / "labels.json").write_text(json.dumps(labels, indent=1) + "\n", encoding="utf-8")
    return labels


def _write_clip(folder: Path, name: str, street: SyntheticStreet, *, masks: bool) -> None:
    cv2 = require("cv2", "opencv-python-headless", "writing pictures")
    for kind in ("frames", "masks") if masks else ("frames",):
        (folder / kind / name).mkdir(parents=True)
    for frame in street.frames():
        path = folder / "frames" / name / f"{frame.index:03d}.jpg"
        _save(cv2, path, frame.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if masks:
            pixels = street.mask(frame.index).astype(np.uint8) * np.uint8(255)
            _save(cv2, folder / "masks" / name / f"{frame.index:03d}.png", pixels, [cv2.IMWRITE_PNG_BILEVEL, 1])


def _save(cv2: Any, path: Path, picture: UInt8, settings: list[int]) -> None:
    if not cv2.imwrite(str(path), picture, settings):
        raise OutputError(f"{path}: cannot be written; is the disk full?")

"""The two streams of VideoPatchCore over a live picture: regions (local) and the whole frame (global).

Source: document 000, sections "Overview" and "Method". What the paper computes once per clip is computed once per frame
here and kept: a region's earlier features are those of the region it continues (`tracks.link`), and a frame's global
feature is one row that the next frames look back on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_vad import spans
from edge_vad.batch import Encoding, Steps, run_alone
from edge_vad.errors import SourceError
from edge_vad.features import (
    Encoder,
    GlobalPooling,
    Preprocessing,
    TemporalPooling,
    global_features,
    highlevel_patch,
    local_features,
    normalised,
    spatial_patches,
    temporal_patches,
    temporal_pooling,
)
from edge_vad.motion import MotionSettings, RegionProposer, RgbDifference
from edge_vad.object_detector import ObjectDetector, ObjectSettings
from edge_vad.perspective import Perspective
from edge_vad.sampling import crops, decimate, resize
from edge_vad.strict import check_range
from edge_vad.tracks import link
from edge_vad.types import Float32, Frame, UInt8
from edge_vad.velocity import Search, velocities

COMPONENTS = ("spatial", "temporal", "velocity", "speed", "highlevel")
MEMORISED = "memorised:"  # rows that fill a bank where they differ from those that search it (mismatched pooling)
OBJECT_PREFIX = "object_"  # components of detector boxes beside those of motion regions


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """The local stream. crop: side in pixels of a region's picture for the encoder; enlarge: of a region's height.

    split_channels: groups of split pooling, None keeps all channels. spatial_kernel, margin: of the spatial partition.
    clip_s: seconds of a track that the temporal poolings look back on; speeds are averaged over it.
    pooling_memorise, pooling_infer: global poolings of the temporal partition (the paper's mismatched pooling is
    average and maximum).
    """

    crop: int = 64
    enlarge: float = 1.1
    split_channels: int | None = None
    spatial_kernel: int = 2
    margin: int = 1
    temporal_pooling: TemporalPooling = "last"
    pooling_memorise: GlobalPooling = "average"
    pooling_infer: GlobalPooling = "average"
    clip_s: float = 0.6

    def __post_init__(self) -> None:
        check_range(8, 1024, crop=self.crop)
        check_range(0.01, 100, enlarge=self.enlarge)
        check_range(1, 8192, split_channels=self.split_channels)
        check_range(1, 128, spatial_kernel=self.spatial_kernel)
        check_range(0, 64, margin=self.margin)
        check_range(1e-3, 3600, clip_s=self.clip_s)


@dataclass(frozen=True, slots=True)
class GlobalSettings:
    """The global stream. every: processed frames between two rows; decimate: of the picture; levels: of the pyramid."""

    every: int = 3
    decimate: int = 2
    levels: int = 2

    def __post_init__(self) -> None:
        check_range(1, 1e6, every=self.every)
        check_range(1, 64, decimate=self.decimate)
        check_range(0, 64, levels=self.levels)


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that decides what a feature means. It is part of the bundle, never of a profile.

    image_size: (width, height) of the frames. factor: image pixels per working pixel. stride: frames per processed
    frame at ``fps``. components: the ones that are scored (see `COMPONENTS`); the rest is not computed.
    """

    image_size: tuple[int, int]
    factor: int
    fps: float
    stride: int
    perspective: Perspective
    preprocessing: Preprocessing
    components: tuple[str, ...]
    motion: MotionSettings = field(default_factory=MotionSettings)
    local: LocalSettings = field(default_factory=LocalSettings)
    highlevel: GlobalSettings = field(default_factory=GlobalSettings)
    objects: ObjectSettings | None = None

    def __post_init__(self) -> None:
        check_range(16, 16384, width=self.image_size[0], height=self.image_size[1])
        check_range(1, 64, factor=self.factor)
        check_range(1e-3, 1e3, fps=self.fps)
        check_range(1, 1000, stride=self.stride)
        smallest = min(self.image_size) // self.factor
        if smallest < 8 * self.highlevel.decimate:
            raise ValueError(f"pictures of {smallest} working pixels are too small for decimate {self.highlevel.decimate}")
        for name in self.components:
            kind = name.removeprefix(OBJECT_PREFIX)
            if kind not in COMPONENTS or (kind != name and (kind == "highlevel" or self.objects is None)):
                raise ValueError(f"unknown component {name!r}")
        if not self.components or len(set(self.components)) < len(self.components):
            raise ValueError("components: none, or one of them twice")

    @property
    def banks(self) -> list[str]:
        """The components that search a memory bank."""
        return [name for name in self.components if not name.endswith("speed")]

    @property
    def period_s(self) -> float:
        """Seconds between two processed frames."""
        return self.stride / self.fps


@dataclass(slots=True)
class LocalFeatures:
    """Regions of one frame. boxes: (n, 4) working pixels; confidence, age: (n,); known: whether a past to compare exists.

    rows: bank name -> (n, p, c). speed: (n,) object heights per second, averaged over the track. continued: (n,) bool.
    """

    boxes: Float32
    confidence: Float32
    age: np.ndarray
    known: bool
    continued: np.ndarray
    speed: Float32
    rows: dict[str, Float32] = field(default_factory=dict)


class Stopwatch:
    """CPU milliseconds of the calling thread, by stage."""

    def __init__(self) -> None:
        self.stage_ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        recorder = spans.recorder
        if recorder is not None:
            recorder.begin()
        start = time.thread_time_ns()
        try:
            yield
        finally:
            self.stage_ms[stage] = self.stage_ms.get(stage, 0.0) + (time.thread_time_ns() - start) / 1e6
            if recorder is not None:
                recorder.end(stage)


class LocalStream:
    """Features of regions, followed over short tracks."""

    def __init__(self, settings: Settings, encoder: Encoder, prefix: str = "", memorise: bool = False) -> None:
        """prefix: of the component names. memorise: whether a bank is being filled (mismatched pooling)."""
        self._settings = settings
        self._encoder = encoder
        self._wanted = {c.removeprefix(prefix) for c in settings.components if c.removeprefix(prefix) in COMPONENTS}
        local = settings.local
        self._memorise = memorise
        self._length = max(1, round(local.clip_s / settings.period_s))
        self.reset()

    def reset(self) -> None:
        """Forget all tracks."""
        self._timestamp = -np.inf
        self._boxes = np.zeros((0, 4), dtype=np.float32)
        self._maps: list[list[Float32]] = []  # per region its track's feature maps, oldest first
        self._velocities: list[list[Float32]] = []
        self._n_measured = 0  # frames whose speeds were measured: no track can be longer

    def update(
        self,
        image: UInt8,
        luma: UInt8,
        past: list[tuple[float, UInt8]],
        boxes: Float32,
        confidence: Float32,
        timestamp: float,
        watch: Stopwatch,
    ) -> Steps[LocalFeatures]:
        """Features of the regions ``boxes`` (n, 4) in working pixels of one frame; past as `RgbDifference.update` gives."""
        with watch("velocity"):
            velocity = velocities(luma, past, boxes, Search(self._settings.motion.max_speed))
            before = link(boxes, self._boxes, velocity, timestamp - self._timestamp)
            self._follow(before, velocity if past else None)
        maps = yield from self._encode(image, boxes, watch)
        with watch("features"):
            tracks = [[*(self._maps[j] if j >= 0 else []), maps[i]][-self._length :] for i, j in enumerate(before)]
            age = np.array([len(t) for t in tracks], dtype=np.int64)
            found = LocalFeatures(boxes, confidence, age, bool(past), before >= 0, self._speed())
            self._describe(found, tracks)
        self._timestamp, self._boxes, self._maps = timestamp, boxes, tracks
        return found

    def _follow(self, before: np.ndarray, velocity: Float32 | None) -> None:
        """Continue the tracks; without a past to measure against (None) they begin empty."""
        old = self._velocities
        self._n_measured += velocity is not None
        self._velocities = [
            [*(old[j] if j >= 0 else []), *([] if velocity is None else [velocity[i]])][-self._length :]
            for i, j in enumerate(before)
        ]

    def _encode(self, image: UInt8, boxes: Float32, watch: Stopwatch) -> Steps[list[Float32]]:
        """One feature map (h, w, c) per region; none where no component needs them."""
        if not len(boxes) or not {"spatial", "temporal"} & self._wanted:
            return [np.zeros((1, 1, 1), dtype=np.float32)] * len(boxes)
        local = self._settings.local
        with watch("crops"):
            pictures = crops(image, squares(boxes, local.enlarge), local.crop, local.crop)
        taps = yield Encoding(self._encoder, pictures, watch.stage_ms, "encoder")
        with watch("features"):
            return list(local_features(taps, local.split_channels))

    def _describe(self, found: LocalFeatures, tracks: list[list[Float32]]) -> None:
        if not len(found.boxes):
            return
        local = self._settings.local
        if "spatial" in self._wanted:
            pooled = np.stack([temporal_pooling(t, local.temporal_pooling) for t in tracks])
            found.rows["spatial"] = normalised(spatial_patches(pooled, local.spatial_kernel, local.margin))
        if "temporal" in self._wanted:
            now = np.stack([t[-1] for t in tracks])
            earlier = np.stack([t[-2] if len(t) > 1 else t[-1] for t in tracks])
            found.rows["temporal"] = temporal_patches(now, earlier, local.pooling_infer)
            if self._memorise and local.pooling_memorise != local.pooling_infer:
                found.rows[MEMORISED + "temporal"] = temporal_patches(now, earlier, local.pooling_memorise)
        if "velocity" in self._wanted:
            found.rows["velocity"] = self._velocity_rows()[:, None]

    def _speed(self) -> Float32:
        """Geometric mean speed over each track, (n,); what a track lacks of the clip is filled up with the usual speed."""
        usual = self._settings.motion.usual_speed
        floor = 0.04 * usual
        length = max(1, min(self._length, self._n_measured))
        counts, measured = self._measured()
        logs = np.log(np.hypot(measured[:, 0], measured[:, 1]) + np.float32(floor))
        sums = np.bincount(np.repeat(np.arange(len(counts)), counts), weights=logs, minlength=len(counts))
        return np.exp((sums + (length - counts) * np.log(usual)) / length).astype(np.float32)

    def _measured(self) -> tuple[NDArray[np.intp], Float32]:
        """Length of every track (n,), and the velocities of all of them, one track after the other: (sum, 2)."""
        counts = np.array([len(track) for track in self._velocities], dtype=np.intp)
        return counts, np.array([v for track in self._velocities for v in track], dtype=np.float32).reshape(-1, 2)

    def _velocity_rows(self) -> Float32:
        """Motion descriptors (n, 3): median velocity over the track and, doubled, its magnitude."""
        counts, measured = self._measured()
        padded = np.full((len(counts), self._length, 2), np.inf, dtype=np.float32)
        padded[np.arange(self._length) < counts[:, None]] = measured
        padded.sort(axis=1)
        item, last = np.arange(len(counts)), np.maximum(counts - 1, 0)
        median = (padded[item, last // 2] + padded[item, (last + 1) // 2]) / 2
        median[counts == 0] = 0
        return np.concatenate([median, 2 * np.linalg.norm(median, axis=1, keepdims=True)], axis=1)


class GlobalStream:
    """High-level rows of the whole frame."""

    def __init__(self, settings: Settings, encoder: Encoder) -> None:
        self._settings = settings
        self._encoder = encoder
        self.reset()

    def reset(self) -> None:
        """Forget the past."""
        self._clip: deque[Float32] = deque(maxlen=self._settings.highlevel.levels + 1)
        self._countdown = 0

    def update(self, image: UInt8, watch: Stopwatch) -> Steps[Float32 | None]:
        """The high-level row (C,) of a frame, working pixels (H, W, 3); None for the frames in between."""
        self._countdown -= 1
        if self._countdown > 0:
            return None
        self._countdown = self._settings.highlevel.every
        taps = yield Encoding(self._encoder, global_picture(image, self._settings), watch.stage_ms, "global")
        with watch("global"):
            self._clip.append(global_features(taps)[0])
            return normalised(highlevel_patch(list(self._clip), self._settings.highlevel.levels))


@dataclass(slots=True)
class FrameFeatures:
    """All features of one frame: the local stream's by prefix, and the high-level row where one fell due."""

    local: dict[str, LocalFeatures]
    highlevel: Float32 | None
    stage_ms: dict[str, float]


class Extractor:
    """Frames in, features out; what the runtime searches with and the converters fill banks with."""

    def __init__(
        self,
        settings: Settings,
        encoder: Encoder,
        object_detector: ObjectDetector | None = None,
        memorise: bool = False,
    ) -> None:
        self._settings = settings
        self._difference = RgbDifference(settings.motion)
        self._proposer: RegionProposer | None = None
        self._local = LocalStream(settings, encoder, "", memorise)
        self._detector = object_detector
        self._objects = LocalStream(settings, encoder, OBJECT_PREFIX, memorise) if object_detector else None
        self._global = GlobalStream(settings, encoder) if "highlevel" in settings.components else None

    def reset(self) -> None:
        """Forget the past, after a gap in the stream."""
        for part in (self._difference, self._local, self._objects, self._global):
            if part is not None:
                part.reset()

    def __call__(self, frame: Frame) -> FrameFeatures:
        """Features of the next frame; SourceError when its size is not the bundle's."""
        return run_alone(self.steps(frame))

    def steps(self, frame: Frame) -> Steps[FrameFeatures]:
        """The same, with a pause wherever pictures have to be encoded."""
        checked_size(frame, self._settings.image_size)
        watch = Stopwatch()
        with watch("motion"):
            image = decimate(frame.image, self._settings.factor)
            luma = working_luma(frame, image)
            moving, past = self._difference.update(image, luma, frame.timestamp)
            if self._proposer is None:
                self._proposer = RegionProposer(moving.shape, self._settings.perspective, self._settings.motion)
            boxes, fraction = self._proposer.propose(moving)
        found = {"": (yield from self._local.update(image, luma, past, boxes, fraction, frame.timestamp, watch))}
        if self._detector and self._objects:
            with watch("object detector"):
                boxes, confidence = self._detector(image, self._settings.perspective)
            features = yield from self._objects.update(image, luma, past, boxes, confidence, frame.timestamp, watch)
            found[OBJECT_PREFIX] = features
        highlevel = (yield from self._global.update(image, watch)) if self._global else None
        return FrameFeatures(found, highlevel, watch.stage_ms)


def checked_size(frame: Frame, wanted_size: tuple[int, int]) -> None:
    """SourceError when a frame has not the size that the bundle was built for."""
    size = (frame.image.shape[1], frame.image.shape[0])
    if size != wanted_size:
        wanted = "{}x{}".format(*wanted_size)
        raise SourceError(
            f"frames of {size[0]}x{size[1]} pixels, the bundle was built for {wanted}; build one for this camera"
        )


def working_luma(frame: Frame, image: UInt8) -> UInt8:
    """Luma (H, W) uint8 in working pixels: the camera's own plane where it has that size."""
    if frame.luma.shape == image.shape[:2]:
        return frame.luma
    return ((image[..., 0].astype(np.uint16) + 2 * image[..., 1].astype(np.uint16) + image[..., 2]) >> 2).astype(np.uint8)


def squares(boxes: Float32, enlarge: float) -> Float32:
    """Square boxes (n, 4) around the centres of boxes, ``enlarge`` times their height."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 3:4] - boxes[:, 1:2]) * np.float32(enlarge / 2)
    return np.concatenate([centre - half, centre + half], axis=1)


def global_picture(image: UInt8, settings: Settings) -> UInt8:
    """What the encoder sees of a whole frame (H, W, 3) uint8: (1, h, w, 3), decimated, sides brought to multiples."""
    if settings.preprocessing.fixed_size:
        return resize(image, settings.preprocessing.fixed_size, settings.preprocessing.fixed_size)[None]
    small = decimate(image, settings.highlevel.decimate)
    bottom, right = (-side % settings.preprocessing.multiple for side in small.shape[:2])
    return np.pad(small, ((0, bottom), (0, right), (0, 0)), mode="edge")[None]

"""`edge_vad.streams` on tensors: the same features of the same regions, which stay on the device."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge_vad.batch import Steps
from edge_vad.motion import RegionProposer
from edge_vad.streams import COMPONENTS, OBJECT_PREFIX, FrameFeatures, LocalFeatures, Settings
from edge_vad.tensors.features import (
    LocalPooling,
    TensorEncoder,
    TensorEncoding,
    global_features,
    highlevel_patch,
    normalised,
    spatial_patches,
    temporal_patches,
    temporal_pooling,
)
from edge_vad.tensors.motion import TensorDifference
from edge_vad.tensors.object_detector import TensorObjectDetector
from edge_vad.tensors.sampling import crops, decimate, edge_padded, luma_of, resize
from edge_vad.tensors.tracks import appended, carried, counted, held, link, median
from edge_vad.tensors.transfer import Download, download, upload
from edge_vad.tensors.watch import Watch
from edge_vad.types import Float32, Frame, UInt8
from edge_vad.velocity import Search, velocities


@dataclass(slots=True)
class TensorLocal:
    """Regions of one frame; see `edge_vad.streams.LocalFeatures`. boxes, confidence, known are on the host, all else on the
    device. finite: whether the encoder gave numbers, (k,) bool on the device."""

    boxes: Float32
    confidence: Float32
    known: bool
    age: Tensor
    continued: Tensor
    speed: Tensor
    rows: dict[str, Tensor] = field(default_factory=dict)

    def on_host(self) -> LocalFeatures:
        """The same as arrays, in one download."""
        age, continued, speed, *rows = download([self.age, self.continued, self.speed, *self.rows.values()])
        named = dict(zip(self.rows, rows, strict=True))
        return LocalFeatures(self.boxes, self.confidence, age, self.known, continued, speed, named)


@dataclass(slots=True)
class TensorFeatures:
    """All features of one frame. finite: of each use of the encoder, whether it gave numbers (a bool on the device)."""

    local: dict[str, TensorLocal]
    highlevel: Tensor | None
    finite: list[Tensor]
    watch: Watch

    def on_host(self) -> FrameFeatures:
        """The same as arrays: for the self-test, which compares them."""
        highlevel = None if self.highlevel is None else download([self.highlevel])[0]
        return FrameFeatures({prefix: local.on_host() for prefix, local in self.local.items()}, highlevel, {})


class TensorLocalStream:
    """Features of regions, followed over short tracks: rows of tensors, one for each region of the last frame."""

    def __init__(self, settings: Settings, encoder: TensorEncoder, prefix: str = "") -> None:
        """prefix: of the component names."""
        self._settings = settings
        self._encoder = encoder
        self._wanted = {c.removeprefix(prefix) for c in settings.components if c.removeprefix(prefix) in COMPONENTS}
        local = settings.local
        self._length = max(1, round(local.clip_s / settings.period_s))
        self._depth = min(self._length, 2) if local.temporal_pooling == "last" else self._length
        self._pooling = LocalPooling(local.split_channels)
        self.reset()

    def reset(self) -> None:
        """Forget all tracks."""
        self._n_measured = 0  # frames whose speeds were measured: no track can be longer
        self._empty(-math.inf)

    def _empty(self, timestamp: float) -> None:
        device = self._encoder.device
        self._timestamp = timestamp
        self._boxes = torch.zeros((0, 4), device=device)
        self._age = torch.zeros(0, dtype=torch.int64, device=device)
        self._maps: Tensor | None = None  # (n, depth, h, w, c)
        self._velocities = torch.zeros((0, self._length, 2), device=device)
        self._n_velocities = self._age

    def update(
        self,
        image: Tensor,
        luma: UInt8,
        past: list[tuple[float, UInt8]],
        boxes: Float32,
        confidence: Float32,
        timestamp: float,
        features: TensorFeatures,
    ) -> Steps[TensorLocal]:
        """Features of the regions ``boxes`` (n, 4) of one frame; see `edge_vad.streams.LocalStream.update`.

        Speeds are measured on the host, where luma and boxes lie: on a device the launches of its kernels take longer.
        """
        watch = features.watch
        self._n_measured += bool(past)
        if not len(boxes):
            self._empty(timestamp)
            return TensorLocal(boxes, confidence, bool(past), self._age, self._age > 0, self._age.float())
        with watch.host("velocity"):
            measured = velocities(luma, past, boxes, Search(self._settings.motion.max_speed))
        with watch("features"):
            at, velocity = upload(np.concatenate([boxes, measured], axis=1), self._encoder.device).split([4, 2], dim=1)
            before = link(at, self._boxes, velocity, timestamp - self._timestamp)
            self._follow(before, velocity if past else None)
        self._timestamp, self._boxes = timestamp, at
        maps = yield from self._encode(image, at, features)
        with watch("features"):
            local = TensorLocal(boxes, confidence, bool(past), self._age, before >= 0, self._speed())
            if maps is not None:
                self._remember(maps, before)
            self._describe(local)
        return local

    def _follow(self, before: Tensor, velocity: Tensor | None) -> None:
        """Continue the tracks; without a past to measure against (None) they begin empty."""
        self._age = (counted(self._age, before) + 1).clamp(max=self._length)
        self._velocities = carried(self._velocities, before)
        self._n_velocities = counted(self._n_velocities, before)
        if velocity is not None:
            self._velocities = appended(self._velocities, velocity)
            self._n_velocities = (self._n_velocities + 1).clamp(max=self._length)

    def _encode(self, image: Tensor, boxes: Tensor, features: TensorFeatures) -> Steps[Tensor | None]:
        """Feature maps (n, h, w, c) of the regions; None where no component needs them."""
        if not {"spatial", "temporal"} & self._wanted:
            return None
        local = self._settings.local
        with features.watch("crops"):
            pictures = crops(image, squares(boxes, local.enlarge), local.crop, local.crop)
        taps, finite = yield TensorEncoding(self._encoder, pictures, features.watch, "encoder")
        features.finite.append(finite)
        with features.watch("features"):
            return self._pooling(taps)

    def _remember(self, maps: Tensor, before: Tensor) -> None:
        if self._maps is None:
            self._maps = maps.new_zeros((0, self._depth, *maps.shape[1:]))
        self._maps = appended(carried(self._maps, before), maps)

    def _describe(self, found: TensorLocal) -> None:
        local, maps = self._settings.local, self._maps
        if "spatial" in self._wanted and maps is not None:
            pooled = temporal_pooling(maps, self._age, local.temporal_pooling)
            found.rows["spatial"] = normalised(spatial_patches(pooled, local.spatial_kernel, local.margin))
        if "temporal" in self._wanted and maps is not None:
            now = maps[:, -1]
            earlier = torch.where((self._age > 1)[:, None, None, None], maps[:, -2], now) if self._depth > 1 else now
            found.rows["temporal"] = temporal_patches(now, earlier, local.pooling_infer)
        if "velocity" in self._wanted:
            middle = median(self._velocities, self._n_velocities)
            length = torch.linalg.vector_norm(middle, dim=1, keepdim=True)
            found.rows["velocity"] = torch.cat([middle, 2 * length], dim=1)[:, None]

    def _speed(self) -> Tensor:
        """Geometric mean speed over each track, (n,); what a track lacks of the clip is filled up with the usual speed."""
        usual = self._settings.motion.usual_speed
        length = max(1, min(self._length, self._n_measured))
        logs = (torch.linalg.vector_norm(self._velocities, dim=2) + 0.04 * usual).log()
        there = held(self._velocities, self._n_velocities)
        total = torch.where(there, logs, 0.0).sum(dim=1) + (length - self._n_velocities) * math.log(usual)
        return (total / length).exp()


class TensorGlobalStream:
    """High-level rows of the whole frame."""

    def __init__(self, settings: Settings, encoder: TensorEncoder) -> None:
        self._settings = settings
        self._encoder = encoder
        self.reset()

    def reset(self) -> None:
        """Forget the past."""
        self._clip: deque[Tensor] = deque(maxlen=self._settings.highlevel.levels + 1)
        self._countdown = 0

    def update(self, image: Tensor, features: TensorFeatures) -> Steps[Tensor | None]:
        """The high-level row (C,) of a frame, working pixels (H, W, 3); None for the frames in between."""
        self._countdown -= 1
        if self._countdown > 0:
            return None
        self._countdown = self._settings.highlevel.every
        with features.watch("global"):
            picture = global_picture(image, self._settings)
        taps, finite = yield TensorEncoding(self._encoder, picture, features.watch, "global")
        features.finite.append(finite)
        with features.watch("global"):
            self._clip.append(global_features(taps)[0])
            return normalised(highlevel_patch(list(self._clip), self._settings.highlevel.levels))


class TensorExtractor:
    """Frames in, features on the device out."""

    def __init__(self, settings: Settings, encoder: TensorEncoder, object_detector: TensorObjectDetector | None) -> None:
        self._settings = settings
        self._device = encoder.device
        self._difference = TensorDifference(settings.motion)
        self._proposer: RegionProposer | None = None
        self._local = TensorLocalStream(settings, encoder)
        self._detector = object_detector
        self._objects = TensorLocalStream(settings, encoder, OBJECT_PREFIX) if object_detector else None
        self._global = TensorGlobalStream(settings, encoder) if "highlevel" in settings.components else None

    def reset(self) -> None:
        """Forget the past, after a gap in the stream."""
        for part in (self._difference, self._local, self._objects, self._global):
            if part is not None:
                part.reset()

    def steps(self, frame: Frame) -> Steps[TensorFeatures]:
        """Features of the next frame, which has the bundle's size.

        One download: the mask of moving pixels, the luma where the device made it, and what the object detector found.
        Regions are chosen one after the other, and their number decides the size of everything that follows.
        """
        features = TensorFeatures({}, None, [], Watch(self._device))
        watch = features.watch
        with watch("upload"):
            whole = upload(frame.image, self._device)
        with watch("motion"):
            image = decimate(whole, self._settings.factor)
            small, moving, past = self._difference.compare(image, frame.timestamp)
            made_luma = frame.luma.shape != image.shape[:2]  # else the camera's own has the size of working pixels
            wanted = [moving, luma_of(image)] if made_luma else [moving]
        if self._detector:
            with watch("object detector"):
                wanted.append(self._detector.rows(image))
        mask, *found = yield Download(wanted, watch)
        luma = found.pop(0) if made_luma else frame.luma
        self._difference.remember(small, luma, frame.timestamp)
        with watch.host("regions"):
            boxes, fraction = self._propose(mask)
        seen = (image, luma, past)
        features.local[""] = yield from self._local.update(*seen, boxes, fraction, frame.timestamp, features)
        if self._detector and self._objects:
            with watch.host("object detector"):
                boxes, confidence = self._detector.boxes(found[0], image.shape, self._settings.perspective)
            local = yield from self._objects.update(*seen, boxes, confidence, frame.timestamp, features)
            features.local[OBJECT_PREFIX] = local
        if self._global:
            features.highlevel = yield from self._global.update(image, features)
        return features

    def _propose(self, mask: np.ndarray) -> tuple[Float32, Float32]:
        if self._proposer is None:
            shape: Any = mask.shape
            self._proposer = RegionProposer(shape, self._settings.perspective, self._settings.motion)
        return self._proposer.propose(mask)


def squares(boxes: Tensor, enlarge: float) -> Tensor:
    """Square boxes (n, 4) around the centres of boxes, ``enlarge`` times their height."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 3:4] - boxes[:, 1:2]) * (enlarge / 2)
    return torch.cat([centre - half, centre + half], dim=1)


def global_picture(image: Tensor, settings: Settings) -> Tensor:
    """What the encoder sees of a whole frame (H, W, 3) uint8: (1, h, w, 3), decimated, sides brought to multiples."""
    fixed = settings.preprocessing.fixed_size
    if fixed:
        return resize(image, fixed, fixed)[None]
    return edge_padded(decimate(image, settings.highlevel.decimate), settings.preprocessing.multiple)[None]

"""The normal footage of a build: checked, measured, and passed through frame by frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from edge_vad.converters.measure import measure_perspective, measure_speed, noise_threshold, working_factor
from edge_vad.converters.settings import BuildSettings, scored_components

from edge_vad.cameras import open_camera
from edge_vad.errors import ProfileError, SourceError
from edge_vad.features import Preprocessing
from edge_vad.footage import Clip
from edge_vad.motion import MotionSettings, RegionProposer, RgbDifference
from edge_vad.progress import progress
from edge_vad.sampling import crops, decimate
from edge_vad.streams import OBJECT_PREFIX, Settings, global_picture, squares, working_luma
from edge_vad.types import Frame, UInt8

log = logging.getLogger(__name__)


MIN_FRAMES = 20  # a clip: the lags, a short track and something to calibrate on
MEASURE_FRAMES = 400  # per pass, spread over the clips
CALIBRATION_PICTURES = 24


def inspect_footage(clips: Sequence[Clip], fps: float | None) -> tuple[tuple[int, int], float, list[int | None]]:
    """(width, height) and frame rate of the clips, and the frames of each, None where its file does not say.

    SourceError when they differ in size or one is too short.
    """
    sizes: dict[tuple[int, int], str] = {}
    rates = []
    counts = []
    for clip in clips:
        with open_camera(clip.path, fps) as camera:
            n_frames = camera.n_frames
            rates.append(camera.fps)
            first = next(iter(camera.frames()), None)
        if first is None or (n_frames is not None and n_frames < MIN_FRAMES):
            raise SourceError(f"{clip.path}: {n_frames or 0} frames; a clip of normal footage needs at least {MIN_FRAMES}")
        counts.append(n_frames)
        sizes.setdefault((first.image.shape[1], first.image.shape[0]), clip.name)
    if len(sizes) > 1:
        found = ", ".join(f"{w}x{h} ({clip})" for (w, h), clip in sizes.items())
        raise SourceError(f"the clips have different sizes: {found}; one bundle is for one camera")
    return next(iter(sizes)), float(np.median(rates)), counts


@dataclass(frozen=True, slots=True)
class Stretch:
    """The first frames of a clip, read anew whenever it is gone through: hundreds of large pictures are never held."""

    clip: Clip
    fps: float | None
    n_most: int

    def __iter__(self) -> Iterator[Frame]:
        with open_camera(self.clip.path, self.fps) as camera:
            yield from islice(camera.frames(), self.n_most)


def stretches(clips: Sequence[Clip], fps: float | None) -> list[Stretch]:
    """Short runs of consecutive frames from the clips, MEASURE_FRAMES in all, spread over all of them."""
    chosen = [clips[i] for i in sorted({round(v) for v in np.linspace(0, len(clips) - 1, min(len(clips), 16))})]
    return [Stretch(clip, fps, max(MIN_FRAMES, MEASURE_FRAMES // len(chosen))) for clip in chosen]


def measure(
    clips: Sequence[Clip], settings: BuildSettings, size: tuple[int, int], fps: float, preprocessing: Preprocessing
) -> Settings:
    """What the footage says about the scene: noise, perspective, speeds."""
    factor = working_factor(size[1])
    local = settings.local
    if preprocessing.fixed_size:
        local = replace(local, crop=preprocessing.fixed_size)
    runs = stretches(clips, settings.fps)
    motion = MotionSettings(threshold=noise_threshold(runs[0], factor), lag_s=2 / fps)
    perspective = measure_perspective(progress(runs, "measure sizes", len(runs)), factor, motion, size[1] // factor)
    motion, stride = measure_speed(
        progress(runs, "measure speeds", len(runs)), factor, motion, perspective, fps, settings.stride
    )
    log.info("an object is %.0f px tall at the lower edge; usual speed %.2f heights per second",
             float(perspective.height(np.array(size[1] // factor))), motion.usual_speed)  # fmt: skip
    try:
        return Settings(
            image_size=size,
            factor=factor,
            fps=fps,
            stride=stride,
            perspective=perspective,
            preprocessing=preprocessing,
            components=tuple(name for name in scored_components(settings) if not name.startswith(OBJECT_PREFIX)),
            motion=motion,
            local=local,
            highlevel=settings.highlevel,
        )
    except ValueError as error:
        raise ProfileError(f"the settings do not fit the footage: {error}") from error


def measure_height(clips: Sequence[Clip], fps: float | None) -> float:
    """Usual height of what moves, in pixels of the footage, halfway down the picture."""
    size, rate, _ = inspect_footage(clips, fps)
    factor = working_factor(size[1])
    runs = stretches(clips, fps)
    motion = MotionSettings(threshold=noise_threshold(runs[0], factor), lag_s=2 / rate)
    perspective = measure_perspective(progress(runs, "measure sizes", len(runs)), factor, motion, size[1] // factor)
    return factor * float(perspective.height(np.array(size[1] // factor / 2)))


def calibration_pictures(clips: Sequence[Clip], scene: Settings, fps: float | None) -> list[UInt8]:
    """What the encoder will see: batches of crops, and whole frames where the global stream is used."""
    batches: list[UInt8] = []
    n_runs = min(len(clips), 16)
    for stretch in stretches(clips, fps):
        difference, proposer = RgbDifference(scene.motion), None
        n_frames = sum(1 for _ in stretch)
        for i, frame in enumerate(stretch):
            image = decimate(frame.image, scene.factor)
            moving, _ = difference.update(image, working_luma(frame, image), frame.timestamp)
            proposer = proposer or RegionProposer(moving.shape, scene.perspective, scene.motion)
            if i < n_frames // 2 or len(batches) >= CALIBRATION_PICTURES:
                continue
            boxes, _ = proposer.propose(moving)
            if len(boxes):
                batches.append(crops(image, squares(boxes, scene.local.enlarge), scene.local.crop, scene.local.crop))
                if "highlevel" in scene.components:
                    batches.append(global_picture(image, scene))
                if len(batches) % max(2, CALIBRATION_PICTURES // n_runs) == 0:
                    break
    return batches


def processed(clip: Clip, stride: int, fps: float | None) -> Iterator[Frame]:
    """The frames of a clip that the runtime would process."""
    with open_camera(clip.path, fps) as camera:
        yield from islice(camera.frames(), 0, None, stride)

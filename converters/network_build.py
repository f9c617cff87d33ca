"""A trained network and normal footage in, bundle out: `edge-vad build --method maam|amco|desd|stpag`.

weights -> ONNX, checked against torch -> INT8 -> errors of held-out footage by the runtime's own code -> calibration
        -> bundle

What a network was trained on it reconstructs too well: its errors there say little of normal footage that it has not seen.
So the calibration uses the footage that the training held out, or all of it where none of it was trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from edge_vad.converters.checkpoint import Trained, load_network
from edge_vad.converters.memory_banks import decoder_inputs, memory_rules, stored_items
from edge_vad.converters.network_export import export_halves, export_network, outputs_of, reduce_network
from edge_vad.converters.normal_footage import inspect_footage, measure_height, processed
from edge_vad.converters.packing import N_GOLDEN, Content, bundle_members, describe_bundle, model_file
from edge_vad.converters.quantisation import Calibration as Calibrated
from edge_vad.converters.settings import BuildSettings
from edge_vad.converters.system import System
from edge_vad.converters.training_footage import distinct

from edge_vad.backends.base import Backend
from edge_vad.bundle import Bundle, write_bundle
from edge_vad.calibration import Calibration, Footage, calibrate
from edge_vad.cameras import open_camera
from edge_vad.errors import SourceError
from edge_vad.files import check_writable
from edge_vad.footage import Clip
from edge_vad.memory_read import MemoryRead, open_memories
from edge_vad.methods._network import NetworkMethod
from edge_vad.networks import FRAMES, Network, NetworkSettings, Window, patch_errors
from edge_vad.patches import Patches
from edge_vad.plugins import load
from edge_vad.progress import progress
from edge_vad.strict import to_plain
from edge_vad.types import Float32, Frame
from edge_vad.vectors import Stored

log = logging.getLogger(__name__)

ROLE, DECODER = "network", "decoder"
CALIBRATION_WINDOWS = 64  # for INT8
TRIED: tuple[Calibrated, ...] = ("minmax", "percentile")  # where no calibration is named
RATE_TOLERANCE = 0.1  # of the frame rate that a network was trained at
# Chosen on events pasted into normal footage and on generated streets (benchmarks/README.md).
SHARE = 0.4  # of the appearance in a fused score
LESS = 0.5  # what a smaller change than expected counts: who stops or turns is normal


@dataclass(frozen=True, slots=True)
class Part:
    """Frames start..stop of a clip of normal footage that calibrates."""

    clip: Clip
    start: int
    stop: int | None

    def frames(self, stride: int, fps: float | None) -> Iterator[Frame]:
        """Those of them that the runtime would process."""
        with open_camera(self.clip.path, fps) as camera:
            yield from islice(camera.frames(), self.start, self.stop, stride)


@dataclass(frozen=True, slots=True)
class Converted:
    """models: ONNX by role, ROLE alone or also DECODER behind the memories. banks: items at rest, by memory."""

    models: Mapping[str, bytes]
    banks: Mapping[str, dict[str, np.ndarray]]

    def network(self, scene: NetworkSettings) -> Network:
        """It on the reference backend, memories searched exactly."""
        backend = load("backends", "onnxruntime", Backend)
        session, memories = backend(self.models[ROLE], threads=2), None
        if DECODER in self.models:
            banks = {name: Stored(arrays) for name, arrays in self.banks.items()}
            memories = open_memories(scene.memories, banks, {}, "exact", backend(self.models[DECODER], threads=2))
        return Network(session, scene, memories)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A network ready for a bundle. runs: the runtime's method over it; parts: the footage that calibrates."""

    trained: Trained
    scene: NetworkSettings
    converted: Converted
    runs: NetworkMethod
    parts: Sequence[Part]


def build_network(
    clips: Sequence[Clip], out: Path, weights: Path, method: str, settings: BuildSettings, name: str | None = None
) -> Bundle:
    """Convert a trained network to the bundle ``out``; weights: a run folder of `edge-vad train`, or its network file.

    clips: the footage that it was trained on, or other normal footage of the same camera. Raises NetworkError, SourceError
    or OutputError.
    """
    check_writable(out)
    clips = distinct(clips)
    network = prepare(clips, weights, method, settings)
    scene, converted = network.scene, network.converted
    content = Content(
        network.runs,
        to_plain(scene),
        converted.models,
        converted.banks,
        calibrate_network(network, settings),
        scene.period_s,
        list(islice(processed(clips[0], scene.stride, settings.fps), N_GOLDEN)),
        licence(network.trained),
    )
    members = bundle_members(content, settings)
    described = described_network(method, converted, settings)
    footage = {"clips": len(clips), "frames_processed": network.trained.n_windows, "ratio": 1.0}
    return write_bundle(
        out, members, describe_bundle(name or out.stem, method, described, converted.banks, members, settings, footage)
    )


def prepare(clips: Sequence[Clip], weights: Path, method: str | None, settings: BuildSettings) -> Prepared:
    """The network of a run in the precision of the settings, measured on what its training held out.

    method: that it has to be; None takes any.
    """
    system, trained = load_network(weights, method)
    check_footage(clips, trained, settings.fps)
    parts = unseen(clips, trained)
    rules = memory_rules(system, settings)
    converted = convert(system, trained.size, rules, settings)
    scene = network_settings(system, trained, patch_size(clips, trained, settings), rules)
    if settings.precision != "fp32":
        converted = reduced(converted, scene, clips, parts, settings)
    scene = with_means(scene, converted, parts, settings)
    return Prepared(trained, scene, converted, network_method(trained.method, scene, converted), parts)


def convert(system: System, size: tuple[int, int], rules: Mapping[str, MemoryRead], settings: BuildSettings) -> Converted:
    """The network in fp32: one graph, or two with banks between them where there are rules for its memories."""
    if not rules:
        return Converted({ROLE: export_network(system, size)}, {})
    network, decoder = export_halves(system, size)
    return Converted({ROLE: network, DECODER: decoder}, stored_items(system, settings.vectors))


def reduced(
    converted: Converted, scene: NetworkSettings, clips: Sequence[Clip], parts: Sequence[Part], settings: BuildSettings
) -> Converted:
    """The same in the precision of the settings. Of INT8 the calibration that is named, else the one whose errors of the
    parts are nearer to those in fp32: which one that is differs from network to network."""
    if settings.precision != "int8":
        return reduced_by("minmax", converted, scene, clips, settings)  # nothing is calibrated
    windows = list(_windows([part.clip for part in parts], scene, settings))
    if not windows:
        raise _too_short(scene)
    if settings.calibration:
        return reduced_by(settings.calibration, converted, scene, clips, settings)
    wanted = _errors(converted, scene, windows)
    found = {name: reduced_by(name, converted, scene, clips, settings) for name in TRIED}
    strays = {name: float(np.abs(_errors(one, scene, windows) - wanted).mean()) for name, one in found.items()}
    best = min(TRIED, key=lambda name: strays[name])
    said = ", ".join(f"{100 * stray:.1f} % with {name}" for name, stray in strays.items())
    log.info("INT8 moves the errors of patches by %s of their mean: %s is taken", said, best)
    return found[best]


def reduced_by(
    calibration: Calibrated, converted: Converted, scene: NetworkSettings, clips: Sequence[Clip], settings: BuildSettings
) -> Converted:
    """With that calibration; the decoder's ranges are those behind the reduced network."""
    models = dict(converted.models)
    windows = ({FRAMES: window} for window in _windows(clips, scene, settings))
    models[ROLE] = reduce_network(models[ROLE], settings.precision, windows, calibration, scene.odds)
    memories = converted.network(scene).memories
    if memories:
        session = load("backends", "onnxruntime", Backend)(models[ROLE], threads=2)
        windows = ({FRAMES: window} for window in _windows(clips, scene, settings))
        inputs = decoder_inputs(session, memories, windows)
        models[DECODER] = reduce_network(models[DECODER], settings.precision, inputs, calibration)
    return replace(converted, models=models)


def _errors(converted: Converted, scene: NetworkSettings, windows: Sequence[Float32]) -> Float32:
    """Patch errors of every output in windows, over the mean of the output: (windows, all patches)."""
    network = converted.network(scene)
    seen = [patch_errors(scene, window, network(window)) for window in windows]
    columns = [np.stack([errors[name].ravel() for errors in seen]) for name in sorted(scene.scored)]
    return np.concatenate([values / max(float(values.mean()), 1e-12) for values in columns], axis=1)


def check_footage(clips: Sequence[Clip], trained: Trained, fps: float | None) -> None:
    """SourceError where the footage is of another picture size or frame rate than the network was trained on."""
    size, found, _ = inspect_footage(clips, fps)
    if size != trained.image_size:
        was = "{}x{}".format(*trained.image_size)
        raise SourceError(
            f"the footage is {size[0]}x{size[1]} pixels, the network was trained on {was}; train one for this camera"
        )
    if abs(found / trained.fps - 1) > RATE_TOLERANCE:
        raise SourceError(
            f"the footage has {found:g} frames per second, the network was trained at {trained.fps:g}; "
            "say --fps, or train anew"
        )


def unseen(clips: Sequence[Clip], trained: Trained) -> list[Part]:
    """What the training held out; all clips where the footage is not the one that was trained on."""
    held = {name: (start, stop) for name, start, stop in trained.held_out}
    parts = [Part(clip, *held[clip.name]) for clip in clips if clip.name in held]
    if not parts:
        log.info("none of these clips was held out of the training: all of them calibrate, as footage that it has not seen")
    return parts or [Part(clip, 0, None) for clip in clips]


def patch_size(clips: Sequence[Clip], trained: Trained, settings: BuildSettings) -> tuple[int, int]:
    """(width, height) in the network's pixels of a square as tall as what usually moves. Not as wide: a cart or a bicycle is
    wider than a person."""
    side = measure_height(clips, settings.fps)
    x, y = (small / large for small, large in zip(trained.size, trained.image_size, strict=True))
    return max(4, round(side * x)), max(4, round(side * y))


def network_settings(
    system: System, trained: Trained, window: tuple[int, int], rules: Mapping[str, MemoryRead] | None = None
) -> NetworkSettings:
    """What the runtime has to know of the network, but for the means. window: (width, height) of a patch; rules: how the
    memories in banks are read."""
    found = outputs_of(system, trained.size)
    width, height = window
    return NetworkSettings(
        image_size=trained.image_size,
        size=trained.size,
        fps=trained.fps,
        stride=trained.stride,
        n_frames=system.n_frames,
        targets={name: target for name, target in system.targets.items() if name in found},
        odds=tuple(name for name in system.odds if name in found),
        patches=Patches(width, height, max(1, width // 4), max(1, height // 4)),
        share=SHARE,
        change_of=system.change_of,
        less=LESS,
        memories=dict(rules or {}),
    )


def network_method(method: str, scene: NetworkSettings, converted: Converted) -> NetworkMethod:
    """The runtime's own method over the network, on the reference backend."""
    return load("methods", method, NetworkMethod)(scene, converted.network(scene))


def with_means(
    scene: NetworkSettings, converted: Converted, parts: Sequence[Part], settings: BuildSettings
) -> NetworkSettings:
    """The settings with the mean error of every output over the parts."""
    network = converted.network(scene)
    window = Window(scene)
    sums: dict[str, list[float]] = {name: [] for name in scene.scored}
    for part in progress(parts, "measure errors", len(parts)):
        window.reset()
        for frame in part.frames(scene.stride, settings.fps):
            frames = window.add(frame.image)
            if frames is not None:
                for name, values in patch_errors(scene, frames, network(frames)).items():
                    sums[name].append(float(values.mean()))
    if not all(sums.values()):
        raise _too_short(scene)
    return replace(scene, means={name: max(float(np.mean(values)), 1e-12) for name, values in sums.items()})


def _too_short(scene: NetworkSettings) -> SourceError:
    return SourceError(f"the held-out footage is shorter than a window of {scene.n_frames} frames; film longer")


def calibrate_network(network: Prepared, settings: BuildSettings) -> Calibration:
    """Statistics of the raw components over the parts."""
    parts = progress(network.parts, "calibrate", len(network.parts))
    footage: Footage = [raw_components(network, part, settings) for part in parts]
    return calibrate(footage, network.runs.weights, settings.window_s, settings.budget_per_hour)


def raw_components(network: Prepared, part: Part, settings: BuildSettings) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    """Timestamps (n,) and raw components (n,) float64 of a part, without the frames that fill the first window."""
    runs, scene = network.runs, network.scene
    runs.reset()
    times, seen = [], []
    for frame in part.frames(scene.stride, settings.fps):
        times.append(frame.timestamp)
        seen.append(runs.observe(frame).components)
    first = scene.n_frames - 1
    raw = {name: np.array([s[name] for s in seen[first:]], dtype=np.float64) for name in runs.components}
    return np.array(times[first:]), raw


def _windows(clips: Sequence[Clip], scene: NetworkSettings, settings: BuildSettings) -> Iterator[Float32]:
    """Windows spread over the clips, CALIBRATION_WINDOWS in all."""
    n_each = -(-CALIBRATION_WINDOWS // len(clips))
    window = Window(scene)
    for clip in clips:
        window.reset()
        found = 0
        for i, frame in enumerate(processed(clip, scene.stride, settings.fps)):
            frames = window.add(frame.image)
            if frames is not None and i % scene.n_frames == 0:
                yield frames
                found += 1
            if found == n_each:
                break


def described_network(method: str, converted: Converted, settings: BuildSettings) -> dict[str, dict[str, Any]]:
    """What the manifest says of the network."""
    return {role: {"file": model_file(role), "name": method, "precision": settings.precision} for role in converted.models}


def licence(trained: Trained) -> str:
    """One line: the weights are the user's own."""
    return f"network: {trained.method}, trained on the footage of this site\n"

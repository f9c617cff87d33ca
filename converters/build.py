"""Normal footage in, bundle out: `edge-vad build`.

clips -> measure (noise, perspective, speed) -> encoder (ONNX, INT8) -> features by the runtime's own code
      -> coreset per clip -> memory banks -> cross-fitted calibration -> golden frames -> bundle
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from edge_vad.converters.coreset import coreset, n_kept
from edge_vad.converters.encoders import EncoderSpec, OnnxEncoder, load_encoder, quantize
from edge_vad.converters.measure import measure_perspective, measure_speed, noise_threshold, working_factor
from edge_vad.converters.objects import load_object_detector

import edge_vad
from edge_vad.backends.base import Backend
from edge_vad.banks.base import open_bank
from edge_vad.bundle import CALIBRATION, GOLDEN, PREPROCESSING, Bundle, canonical_json, write_bundle
from edge_vad.calibration import Calibration, calibrate
from edge_vad.cameras import open_camera
from edge_vad.errors import OutputError, SourceError, did_you_mean
from edge_vad.events import EventSettings
from edge_vad.features import Encoder, Preprocessing
from edge_vad.footage import Clip
from edge_vad.golden import golden_frames
from edge_vad.methods.videopatchcore import BankSearch, VideoPatchCore
from edge_vad.motion import MotionSettings, RegionProposer, RgbDifference
from edge_vad.object_detector import ObjectDetector, ObjectSettings
from edge_vad.plugins import load
from edge_vad.progress import progress
from edge_vad.sampling import crops, decimate
from edge_vad.streams import (
    COMPONENTS,
    MEMORISED,
    OBJECT_PREFIX,
    Extractor,
    FrameFeatures,
    GlobalSettings,
    LocalSettings,
    Settings,
    global_picture,
    squares,
    working_luma,
)
from edge_vad.strict import to_plain
from edge_vad.types import Float32, Frame, UInt8
from edge_vad.vectors import VectorType, compress, expand

log = logging.getLogger(__name__)

METHOD = "videopatchcore"
# Chosen on events pasted into normal footage and on generated streets, never on a benchmark's labels: the table and its
# command are in benchmarks/README.md. Temporal and high-level memories did not help there; `weights:` turns them on.
WEIGHTS = {"spatial": 1.0, "temporal": 0.0, "velocity": 0.5, "speed": 1.0, "highlevel": 0.0}
OBJECT_SHARE = 0.5  # weight of a detector box's component, as part of its motion twin's
MIN_FRAMES = 20  # a clip: the lags, a short track and something to calibrate on
MIN_PARTS = 8  # cross-fitting wants this many parts; fewer clips are cut into pieces
MIN_PART_FRAMES = 40
MEASURE_FRAMES = 400  # per pass, spread over the clips
CALIBRATION_PICTURES = 24
GOLDEN_FRAMES, GOLDEN_HEIGHT = 8, 60


@dataclass(frozen=True, slots=True)
class BuildSettings:
    """What `edge-vad build` can be told; a YAML file (--config) has the same keys.

    weights: component -> weight in the score; 0 leaves the component and its bank out (object_NAME: of detector boxes,
    half of NAME's where not given). window_s: seconds that the score
    is averaged over. budget_per_hour: false alarms that the threshold is set for.
    """

    encoder_name: str = "efficientnet_lite0"
    encoder: EncoderSpec | None = None
    detector: str | None = None
    precision: Literal["int8", "fp32"] = "int8"
    ratio: float = 0.01
    vectors: VectorType = "fp16"
    stride: int = 2
    fps: float | None = None
    weights: dict[str, float] = field(default_factory=lambda: dict(WEIGHTS))
    local: LocalSettings = field(default_factory=LocalSettings)
    highlevel: GlobalSettings = field(default_factory=GlobalSettings)
    window_s: float = 0.9
    budget_per_hour: float = 1.0
    events: EventSettings = field(default_factory=EventSettings)

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise ValueError(f"ratio must lie in 0..1 (0.01 to 0.10 is usual), not {self.ratio}")
        if self.stride < 1 or self.budget_per_hour <= 0 or self.window_s <= 0:
            raise ValueError("stride, budget_per_hour and window_s must be positive")
        for name in self.weights:
            if name.removeprefix(OBJECT_PREFIX) not in COMPONENTS:
                raise ValueError(f"weights: unknown component {name!r}{did_you_mean(name, COMPONENTS)}")
        if not any(weight > 0 for weight in self.weights.values()):
            raise ValueError("weights: at least one component needs a weight above 0")

    def weight(self, component: str) -> float:
        """Weight of a component; an object component without one has OBJECT_SHARE of its motion twin's."""
        twin = self.weights.get(component.removeprefix(OBJECT_PREFIX), 0.0)
        return self.weights.get(component, OBJECT_SHARE * twin if component.startswith(OBJECT_PREFIX) else 0.0)


@dataclass(slots=True)
class Part:
    """A stretch of normal footage for cross-fitting: timestamps and features of its processed frames."""

    times: list[float]
    features: list[FrameFeatures]


def build(clips: Sequence[Clip], out: Path, settings: BuildSettings, name: str | None = None) -> Bundle:
    """Convert normal clips to the bundle ``out``. Raises SourceError, EncoderError or OutputError."""
    check_writable(out)
    size, fps = inspect_footage(clips, settings.fps)
    log.info("%d clips, %d x %d pixels, %g frames per second", len(clips), *size, fps)
    fp32 = load_encoder(settings.encoder_name, settings.encoder)
    scene = measure(clips, settings, size, fps, fp32.preprocessing)
    encoder, similarity = fp32, 1.0
    if settings.precision == "int8":
        encoder, similarity = quantize(fp32, calibration_pictures(clips, scene, settings.fps))
        log.info("INT8 encoder: cosine of its features to fp32 %.4f", similarity)
    models = {"encoder": encoder.model}
    detector: tuple[bytes, ObjectSettings] | None = None
    if settings.detector:
        detector = load_object_detector(Path(settings.detector), size[0] // scene.factor, size[1] // scene.factor)
        models["detector"] = detector[0]
        scene = replace(scene, objects=detector[1], components=scored_components(settings))
    parts = extract(clips, scene, encoder, detector, settings.fps)
    coresets = [memorise(part, scene, settings.ratio) for part in progress(parts, "coreset", len(parts))]
    for empty in (n for n in bank_names(scene) if not any(n in c for c in coresets)):
        raise SourceError(f"nothing fell into the memory bank {empty!r}: nothing moves in the normal footage; film longer")
    stored = {n: compress(np.concatenate([c[n] for c in coresets if n in c]), settings.vectors) for n in bank_names(scene)}
    calibration = cross_fit(parts, coresets, scene, settings)
    members = _members(clips, scene, settings, models, stored, calibration, encoder)
    members[GOLDEN] = _golden(clips[0], scene, models, stored, settings.fps)
    description = _description(name or out.stem, scene, settings, models, stored, similarity, parts, encoder, len(clips))
    return write_bundle(out, members, description)


def check_writable(out: Path) -> None:
    """OutputError before minutes of work, not after them."""
    if not out.parent.is_dir():
        raise OutputError(f"{out}: the folder {out.parent} does not exist; create it first")
    if out.is_dir():
        raise OutputError(f"{out}: is a folder; name a file such as {out}/site.evb")
    probe = out.parent / f".{out.name}.probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from error


def inspect_footage(clips: Sequence[Clip], fps: float | None) -> tuple[tuple[int, int], float]:
    """(width, height) and frame rate of the clips; SourceError when they differ in size or one is too short."""
    sizes: dict[tuple[int, int], str] = {}
    rates = []
    for clip in clips:
        with open_camera(clip.path, fps) as camera:
            n_frames = camera.n_frames
            rates.append(camera.fps)
            first = next(iter(camera.frames()), None)
        if first is None or (n_frames is not None and n_frames < MIN_FRAMES):
            raise SourceError(f"{clip.path}: {n_frames or 0} frames; a clip of normal footage needs at least {MIN_FRAMES}")
        sizes.setdefault((first.image.shape[1], first.image.shape[0]), clip.name)
    if len(sizes) > 1:
        found = ", ".join(f"{w}x{h} ({clip})" for (w, h), clip in sizes.items())
        raise SourceError(f"the clips have different sizes: {found}; one bundle is for one camera")
    return next(iter(sizes)), float(np.median(rates))


def stretches(clips: Sequence[Clip], fps: float | None) -> Iterator[list[Frame]]:
    """Short runs of consecutive frames from the clips, MEASURE_FRAMES in all, spread over all of them."""
    chosen = [clips[i] for i in sorted({round(v) for v in np.linspace(0, len(clips) - 1, min(len(clips), 16))})]
    for clip in chosen:
        with open_camera(clip.path, fps) as camera:
            yield list(islice(camera.frames(), max(MIN_FRAMES, MEASURE_FRAMES // len(chosen))))


def measure(
    clips: Sequence[Clip], settings: BuildSettings, size: tuple[int, int], fps: float, preprocessing: Preprocessing
) -> Settings:
    """What the footage says about the scene: noise, perspective, speeds."""
    factor = working_factor(size[1])
    local = settings.local
    if preprocessing.fixed_size:
        local = replace(local, crop=preprocessing.fixed_size)
    runs = list(progress(stretches(clips, settings.fps), "measure"))
    motion = MotionSettings(threshold=noise_threshold(runs[0], factor), lag_s=2 / fps)
    perspective = measure_perspective(runs, factor, motion, size[1] // factor)
    motion, stride = measure_speed(runs, factor, motion, perspective, fps, settings.stride)
    log.info("an object is %.0f px tall at the lower edge; usual speed %.2f heights per second",
             float(perspective.height(np.array(size[1] // factor))), motion.usual_speed)  # fmt: skip
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


def scored_components(settings: BuildSettings) -> tuple[str, ...]:
    """The components with a weight above 0, those of detector boxes behind the others."""
    names = (*COMPONENTS, *(OBJECT_PREFIX + name for name in COMPONENTS if name != "highlevel"))
    return tuple(name for name in names if settings.weight(name) > 0)


def bank_names(scene: Settings) -> list[str]:
    """The components that have a memory bank."""
    return [name for name in scene.components if not name.endswith("speed")]


def calibration_pictures(clips: Sequence[Clip], scene: Settings, fps: float | None) -> list[UInt8]:
    """What the encoder will see: batches of crops, and whole frames where the global stream is used."""
    batches: list[UInt8] = []
    n_runs = min(len(clips), 16)
    for frames in stretches(clips, fps):
        difference, proposer = RgbDifference(scene.motion), None
        for i, frame in enumerate(frames):
            image = decimate(frame.image, scene.factor)
            moving, _ = difference.update(image, working_luma(frame, image), frame.timestamp)
            proposer = proposer or RegionProposer(moving.shape, scene.perspective, scene.motion)
            if i < len(frames) // 2 or len(batches) >= CALIBRATION_PICTURES:
                continue
            boxes, _ = proposer.propose(moving)
            if len(boxes):
                batches.append(crops(image, squares(boxes, scene.local.enlarge), scene.local.crop, scene.local.crop))
                if "highlevel" in scene.components:
                    batches.append(global_picture(image, scene))
                if len(batches) % max(2, CALIBRATION_PICTURES // n_runs) == 0:
                    break
    return batches


def processed(clip: Clip, scene: Settings, fps: float | None) -> Iterator[Frame]:
    """The frames of a clip that the runtime would process."""
    with open_camera(clip.path, fps) as camera:
        yield from islice(camera.frames(), 0, None, scene.stride)


def extract(
    clips: Sequence[Clip],
    scene: Settings,
    encoder: OnnxEncoder,
    detector: tuple[bytes, ObjectSettings] | None,
    fps: float | None,
) -> list[Part]:
    """Features of all clips by the runtime's own code, in parts for cross-fitting."""
    backend = load("backends", "onnxruntime", Backend)
    objects = ObjectDetector(backend(detector[0], threads=2), detector[1]) if detector else None
    extractor = Extractor(scene, Encoder(backend(encoder.model, threads=2), scene.preprocessing), objects, memorise=True)
    n_cuts = max(1, -(-MIN_PARTS // len(clips)))
    parts: list[Part] = []
    for clip in progress(clips, "features", len(clips)):
        extractor.reset()
        rows = [(frame.timestamp, extractor(frame)) for frame in processed(clip, scene, fps)]
        cuts = max(1, min(n_cuts, len(rows) * scene.stride // MIN_PART_FRAMES))
        for piece in np.array_split(np.arange(len(rows)), cuts):
            parts.append(Part([rows[i][0] for i in piece], [rows[i][1] for i in piece]))
    return parts


def part_rows(part: Part, name: str) -> list[Float32]:
    """Rows of one bank in a part, as they are memorised."""
    if name == "highlevel":
        return [f.highlevel[None] for f in part.features if f.highlevel is not None]
    prefix = OBJECT_PREFIX if name.startswith(OBJECT_PREFIX) else ""
    kind = name.removeprefix(prefix)
    found = []
    for features in part.features:
        local = features.local[prefix]
        rows = local.rows.get(MEMORISED + kind, local.rows.get(kind))
        if rows is None or not local.known:
            continue
        if kind == "temporal":
            rows = rows[local.continued]
        found.append(rows.reshape(-1, rows.shape[2]))
    return found


def memorise(part: Part, scene: Settings, ratio: float) -> dict[str, Float32]:
    """The coreset of every bank of one part; a bank that nothing fell into is left out."""
    kept = {}
    for name in bank_names(scene):
        rows = part_rows(part, name)
        if rows and sum(len(r) for r in rows):
            all_rows = np.concatenate(rows)
            kept[name] = all_rows[coreset(all_rows, n_kept(len(all_rows), ratio))]
    return kept


def cross_fit(
    parts: Sequence[Part], coresets: Sequence[Mapping[str, Float32]], scene: Settings, settings: BuildSettings
) -> Calibration:
    """Calibrate on every part, scored against the memory of the others."""
    names = bank_names(scene)
    footage = []
    for i, part in enumerate(progress(parts, "calibrate", len(parts))):
        others = {n: np.concatenate([c[n] for j, c in enumerate(coresets) if n in c and (j != i or len(parts) == 1)] or
                                    [c[n] for c in coresets if n in c]) for n in names}  # fmt: skip
        stored = {n: expand(compress(rows, settings.vectors)) for n, rows in others.items()}
        search = BankSearch(scene, {n: open_bank("exact", rows) for n, rows in stored.items()})
        scored = [search(features).components for features in part.features]
        raw = {name: np.array([s[name] for s in scored], dtype=np.float64) for name in scored[0]}
        footage.append((np.array(part.times), raw))
    weights = {name: settings.weight(name) for name in scene.components}
    return calibrate(footage, weights, settings.window_s, settings.budget_per_hour)


def _golden(
    clip: Clip,
    scene: Settings,
    models: Mapping[str, bytes],
    stored: Mapping[str, dict[str, np.ndarray]],
    fps: float | None,
) -> bytes:
    """Small frames of normal footage and what the runtime computes from them here."""
    from safetensors.numpy import save

    frames = list(islice(processed(clip, scene, fps), GOLDEN_FRAMES))
    factor = max(1, scene.image_size[1] // GOLDEN_HEIGHT)
    images = np.stack([decimate(frame.image, factor) for frame in frames])
    backend = load("backends", "onnxruntime", Backend)
    objects = ObjectDetector(backend(models["detector"]), scene.objects) if scene.objects else None
    extractor = Extractor(scene, Encoder(backend(models["encoder"]), scene.preprocessing), objects)
    banks = {name: open_bank("exact", expand(arrays)) for name, arrays in stored.items()}
    method = VideoPatchCore(extractor, BankSearch(scene, banks))
    expected = method.golden(golden_frames(images, scene.image_size, scene.period_s))
    frame = np.array([*scene.image_size, scene.period_s])
    return bytes(save({"images": images, "frame": frame, **expected}))


def _members(
    clips: Sequence[Clip],
    scene: Settings,
    settings: BuildSettings,
    models: Mapping[str, bytes],
    stored: Mapping[str, dict[str, np.ndarray]],
    calibration: Calibration,
    encoder: OnnxEncoder,
) -> dict[str, bytes]:
    from safetensors.numpy import save

    plain = {"calibration": to_plain(calibration), "events": to_plain(settings.events), "period_s": scene.period_s}
    return {
        **{f"{role}/{role}.onnx": data for role, data in models.items()},
        **{f"bank/{name}.safetensors": bytes(save(arrays)) for name, arrays in stored.items()},
        PREPROCESSING: canonical_json(to_plain(scene)),
        CALIBRATION: canonical_json(plain),
        "LICENSES.txt": f"encoder: {encoder.licence}\n".encode(),
    }


def _description(
    name: str,
    scene: Settings,
    settings: BuildSettings,
    models: Mapping[str, bytes],
    stored: Mapping[str, dict[str, np.ndarray]],
    similarity: float,
    parts: Sequence[Part],
    encoder: OnnxEncoder,
    n_clips: int,
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "encoder": {
            "file": "encoder/encoder.onnx",
            "name": settings.encoder_name.rsplit("/", 1)[-1],
            "taps": list(scene.preprocessing.taps),
            "precision": settings.precision,
            "cosine_to_fp32": round(similarity, 5),
        }
    }
    if "detector" in models:
        described["detector"] = {"file": "detector/detector.onnx", "name": Path(str(settings.detector)).name}
    return {
        "name": name,
        "serial": 1,
        "method": METHOD,
        "written_by": f"edge-vad {edge_vad.__version__}",
        "models": described,
        "banks": {
            bank: {
                "file": f"bank/{bank}.safetensors",
                "rows": int(arrays["rows"].shape[0]),
                "dimensions": int(arrays["rows"].shape[1]),
                "vectors": settings.vectors,
            }
            for bank, arrays in stored.items()
        },
        "footage": {"clips": n_clips, "frames_processed": sum(len(p.times) for p in parts), "ratio": settings.ratio},
    }

"""Normal footage in, bundle out: `edge-vad build`.

clips -> measure (noise, perspective, speed) -> encoder (ONNX, INT8) -> features by the runtime's own code
      -> coreset per clip -> memory banks -> cross-fitted calibration -> golden frames -> bundle

Features, coresets and cross-fitting are tasks per clip that an engine does; everything else is done here, once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from edge_vad.converters.encoders import OnnxEncoder, features, load_encoder
from edge_vad.converters.engine import Engine
from edge_vad.converters.imports import Imported, check_widths, replaced
from edge_vad.converters.local_engine import LocalEngine
from edge_vad.converters.memory import Scores, cross_scores, memorise_footage
from edge_vad.converters.normal_footage import calibration_pictures, inspect_footage, measure, processed
from edge_vad.converters.objects import load_object_detector
from edge_vad.converters.packing import (
    N_GOLDEN,
    Content,
    bundle_members,
    describe_bundle,
    described_models,
    licences,
    memory_method,
)
from edge_vad.converters.quantisation import reduce_precision
from edge_vad.converters.settings import BuildSettings, scored_components
from edge_vad.converters.work import WorkFolder

from edge_vad.bundle import Bundle, write_bundle
from edge_vad.calibration import calibrate
from edge_vad.errors import BackendError, ProfileError, SourceError
from edge_vad.features import local_features, spatial_patches
from edge_vad.files import check_writable
from edge_vad.footage import Clip
from edge_vad.methods.videopatchcore import VideoPatchCore
from edge_vad.object_detector import ObjectSettings
from edge_vad.onnx_gate import check_model
from edge_vad.streams import Settings
from edge_vad.strict import to_plain
from edge_vad.vectors import compress

log = logging.getLogger(__name__)

METHOD = "videopatchcore"


@dataclass(frozen=True, slots=True)
class Delivered:
    """VideoPatchCore as it will be delivered. scores: of the normal footage, cross-fitted; runs: the method itself."""

    scene: Settings
    models: Mapping[str, bytes]
    stored: Mapping[str, dict[str, np.ndarray]]
    scores: Sequence[Scores]
    runs: VideoPatchCore


class Partner(Protocol):
    """A method that joins VideoPatchCore. method: name of both together."""

    method: str

    def join(
        self, part: Delivered, clips: Sequence[Clip], settings: BuildSettings
    ) -> tuple[Content, dict[str, dict[str, Any]]]:
        """The content of the bundle of both, with its own licences, and what the manifest says of its own models."""


def alone(part: Delivered, clips: Sequence[Clip], settings: BuildSettings) -> tuple[Content, dict[str, dict[str, Any]]]:
    """VideoPatchCore without a partner."""
    scene = part.scene
    calibration = calibrate(
        [(scores.times, scores.raw) for scores in part.scores],
        {name: settings.weight(name) for name in scene.components},
        settings.window_s,
        settings.budget_per_hour,
    )
    golden = list(islice(processed(clips[0], scene.stride, settings.fps), N_GOLDEN))
    plain = to_plain(scene)
    return Content(part.runs, plain, part.models, part.stored, calibration, scene.period_s, golden, ""), {}


def build(
    clips: Sequence[Clip],
    out: Path,
    settings: BuildSettings,
    name: str | None = None,
    engine: Engine | None = None,
    work: Path | None = None,
    imported: Mapping[str, Imported] | None = None,
    partner: Partner | None = None,
) -> Bundle:
    """Convert normal clips to the bundle ``out``. Raises SourceError, EncoderError, EngineError, ForeignMemoryError or
    OutputError.

    engine: does the tasks of the clips, by default this process. work: where finished tasks lie until the bundle is
    written, by default ``OUT.work`` beside it; a build that failed or was killed goes on from there. The bytes of the
    bundle depend on neither. imported: kind (spatial, temporal, highlevel) -> rows in the place of the footage's own.
    partner: a method that joins VideoPatchCore in the bundle.
    """
    check_writable(out)
    size, fps, n_frames = inspect_footage(clips, settings.fps)
    log.info("%d clips, %d x %d pixels, %g frames per second", len(clips), *size, fps)
    changes = {"taps": settings.taps} if settings.taps else {}
    fp32 = load_encoder(settings.encoder_name, settings.encoder, **changes)
    check_model(fp32.model, settings.encoder_name)
    scene = measure(clips, settings, size, fps, fp32.preprocessing)
    widths = feature_widths(scene, fp32)
    check_widths(imported or {}, widths, scene.components)
    encoder, similarity = fp32, 1.0
    if settings.precision != "fp32":
        pictures = calibration_pictures(clips, scene, settings.fps)
        calibration = settings.calibration or "minmax"
        encoder, similarity = reduce_precision(fp32, settings.precision, pictures, calibration, settings.quantizer)
        log.info("%s encoder: cosine of its features to fp32 %.4f", settings.precision.upper(), similarity)
    models = {"encoder": encoder.model}
    detector: tuple[bytes, ObjectSettings] | None = None
    if settings.detector:
        detector = load_object_detector(Path(settings.detector), size[0] // scene.factor, size[1] // scene.factor)
        models["detector"] = detector[0]
        check_model(detector[0], settings.detector)
        scene = replace(scene, objects=detector[1], components=scored_components(settings))
    engine = engine or LocalEngine(jobs=1)
    with WorkFolder(work or out.with_name(f"{out.name}.work")) as folder:
        memory = memorise_footage(clips, n_frames, scene, models, settings, folder, engine)
        for empty in (n for n in scene.banks if n not in memory.rows):
            folder.discard()  # it says nothing
            raise SourceError(
                f"nothing fell into the memory bank {empty!r}: nothing moves in the normal footage; film longer"
            )
        memory = replaced(memory, imported or {})
        scores = cross_scores(memory, scene, settings, folder, engine)
        stored = {n: compress(memory.rows[n], settings.vectors) for n in scene.banks}
        part = Delivered(scene, models, stored, scores, memory_method(scene, models, stored))
        content, described = (partner.join if partner else alone)(part, clips, settings)
        said = licences(settings, encoder)
        said += "".join(
            f"{kind} memory: {bank.source.name}: unknown: ask whoever made it\n"
            for kind, bank in sorted((imported or {}).items())
        )
        members = bundle_members(replace(content, licences=said + content.licences), settings)
        described = {**described_models(scene, settings, models, similarity), **described}
        footage = {"clips": len(clips), "frames_processed": memory.n_frames, "ratio": settings.ratio}
        method = partner.method if partner else METHOD
        description = describe_bundle(name or out.stem, method, described, stored, members, settings, footage)
        return write_bundle(out, members, description)


def feature_widths(scene: Settings, encoder: OnnxEncoder) -> dict[str, int]:
    """Dimensions of the rows that the encoder's features give, by kind.

    ProfileError where the local stream's settings do not fit the encoder, before minutes of work.
    """
    local = scene.local
    crop = np.zeros((1, local.crop, local.crop, 3), dtype=np.uint8)
    try:
        taps = features(encoder.model, encoder.preprocessing, crop)
        maps = local_features(taps, local.split_channels)
        spatial_patches(maps, local.spatial_kernel, local.margin)
    except (ValueError, BackendError) as error:
        raise ProfileError(f"local: crops of {local.crop} pixels do not fit the encoder: {error}") from error
    width = maps.shape[3]
    return {"spatial": width, "temporal": width, "highlevel": sum(tap.shape[1] for tap in taps)}

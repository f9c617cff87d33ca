"""The members of a bundle and its description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from edge_vad.converters.encoders import OnnxEncoder
from edge_vad.converters.memory import Part
from edge_vad.converters.normal_footage import processed
from edge_vad.converters.settings import BuildSettings

import edge_vad
from edge_vad.backends.base import Backend
from edge_vad.banks.base import open_bank
from edge_vad.bundle import CALIBRATION, PREPROCESSING, canonical_json
from edge_vad.calibration import Calibration
from edge_vad.features import Encoder
from edge_vad.footage import Clip
from edge_vad.golden import golden_frames
from edge_vad.methods.videopatchcore import BankSearch, VideoPatchCore
from edge_vad.object_detector import ObjectDetector
from edge_vad.plugins import load
from edge_vad.sampling import decimate
from edge_vad.streams import Extractor, Settings
from edge_vad.strict import to_plain
from edge_vad.vectors import expand

METHOD = "videopatchcore"
GOLDEN_FRAMES, GOLDEN_HEIGHT = 8, 60


def golden_member(
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


def bundle_members(
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
        "LICENSES.txt": _licences(settings, encoder).encode(),
    }


def _licences(settings: BuildSettings, encoder: OnnxEncoder) -> str:
    lines = [f"encoder: {encoder.licence}"]
    if settings.detector:
        lines.append(f"detector: {Path(settings.detector).name}: unknown: ask whoever gave you the weights")
    return "\n".join(lines) + "\n"


def describe_bundle(
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

"""The members of a bundle and its description."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from edge_vad.converters.encoders import OnnxEncoder
from edge_vad.converters.settings import BuildSettings

import edge_vad
from edge_vad import tensorfile
from edge_vad.backends.base import Backend
from edge_vad.banks.base import CROSSOVER_ROWS, open_bank
from edge_vad.banks.hnsw import search_graph
from edge_vad.calibration import Calibration
from edge_vad.features import Encoder
from edge_vad.golden import golden_frames, golden_values
from edge_vad.manifest import (
    CALIBRATION,
    GOLDEN,
    LICENSES,
    PREPROCESSING,
    bank_hashes,
    canonical_json,
    fingerprint,
    sha256,
)
from edge_vad.methods.base import Method
from edge_vad.methods.videopatchcore import BankSearch, VideoPatchCore
from edge_vad.object_detector import ObjectDetector
from edge_vad.plugins import load
from edge_vad.sampling import decimate
from edge_vad.streams import Extractor, Settings
from edge_vad.strict import to_plain
from edge_vad.types import Frame, UInt8
from edge_vad.vectors import Stored, bank_sums, expand

GOLDEN_FRAMES, GOLDEN_STRANGE, GOLDEN_HEIGHT = 8, 4, 60
N_GOLDEN = GOLDEN_FRAMES + GOLDEN_STRANGE


@dataclass(frozen=True, slots=True)
class Content:
    """What a bundle is packed of. runs: the method as the device will run it; preprocessing: its settings as JSON values;
    models: ONNX by role; stored: banks at rest; golden: processed frames for the self-test; licences: of the members."""

    runs: Method
    preprocessing: Mapping[str, Any]
    models: Mapping[str, bytes]
    stored: Mapping[str, dict[str, np.ndarray]]
    calibration: Calibration
    period_s: float
    golden: Sequence[Frame]
    licences: str


def bundle_members(content: Content, settings: BuildSettings) -> dict[str, bytes]:
    """Every member but the manifest; each says what it belongs to (`edge_vad.manifest`)."""
    preprocessing = canonical_json(content.preprocessing)
    features = fingerprint(content.models, preprocessing)
    banks = {name: tensorfile.save(arrays, {"features": features}) for name, arrays in content.stored.items()}
    bound = {"features": features, "banks": bank_hashes(banks)}
    calibration = content.calibration
    scoring = {"calibration": to_plain(calibration), "events": to_plain(settings.events), "period_s": content.period_s}
    calibrated = canonical_json({**scoring, **bound})
    golden = golden_of(content.runs, content.golden, content.period_s, calibration, settings)
    return {
        **{model_file(role): data for role, data in content.models.items()},
        **{bank_file(name): data for name, data in banks.items()},
        **search_graphs(content.stored, banks, settings),
        PREPROCESSING: preprocessing,
        CALIBRATION: calibrated,
        GOLDEN: tensorfile.save(golden, {**bound, "calibration": sha256(calibrated)}),
        LICENSES: content.licences.encode(),
    }


def memory_method(
    scene: Settings, models: Mapping[str, bytes], stored: Mapping[str, dict[str, np.ndarray]]
) -> VideoPatchCore:
    """VideoPatchCore with what its bundle will hold, on the reference backend."""
    backend = load("backends", "onnxruntime", Backend)
    objects = ObjectDetector(backend(models["detector"]), scene.objects) if scene.objects else None
    extractor = Extractor(scene, Encoder(backend(models["encoder"]), scene.preprocessing), objects)
    rows = {name: expand(arrays) for name, arrays in stored.items()}
    banks = {name: open_bank("exact", values) for name, values in rows.items()}
    sums = {name: bank_sums(values) for name, values in rows.items()}
    return VideoPatchCore(scene, extractor, BankSearch(scene, banks), sums)


def golden_of(
    method: Method, frames: Sequence[Frame], period_s: float, calibration: Calibration, settings: BuildSettings
) -> dict[str, np.ndarray]:
    """What lies in golden.safetensors: small pictures of N_GOLDEN processed frames, the last of them strange, and what the
    method computes from them."""
    size = (frames[0].image.shape[1], frames[0].image.shape[0])
    factor = max(1, size[1] // GOLDEN_HEIGHT)
    images = np.stack([decimate(frame.image, factor) for frame in frames])
    paste_strange(images[GOLDEN_FRAMES:])
    enlarged = golden_frames(images, size, period_s)
    frame = np.array([*size, period_s])
    return {"images": images, "frame": frame, **golden_values(method, calibration, settings.events, enlarged)}


def paste_strange(images: UInt8) -> None:
    """Paste a jumping checkerboard into frames (n, h, w, 3): whatever was filmed, the self-test also sees an alarm."""
    height, width = images.shape[1:3]
    side = max(2, height // 4)
    rows, columns = np.indices((side, side))
    tile = np.where((rows // 2 + columns // 2) % 2, 255, 0).astype(np.uint8)[..., None]
    for i, image in enumerate(images):
        left = (width // 8 + i * width // 5) % max(1, width - side)
        top = (height - side) // 2
        image[top : top + side, left : left + side] = tile


def model_file(role: str) -> str:
    """Member name of a graph."""
    return f"{role}/{role}.onnx"


def bank_file(name: str) -> str:
    """Member name of a memory bank."""
    return f"bank/{name}.safetensors"


def index_file(name: str) -> str:
    """Member name of a bank's search graph."""
    return f"index/{name}.safetensors"


def indexed_banks(stored: Mapping[str, dict[str, np.ndarray]], settings: BuildSettings) -> list[str]:
    """The banks that are delivered with a search graph."""
    least = {"auto": CROSSOVER_ROWS, "always": 1, "never": np.inf}[settings.index]
    return [name for name, arrays in stored.items() if len(arrays["rows"]) >= least]


def search_graphs(
    stored: Mapping[str, dict[str, np.ndarray]], banks: Mapping[str, bytes], settings: BuildSettings
) -> dict[str, bytes]:
    """Search graphs of the large banks that find what exact search finds, by file."""
    made = {n: search_graph(expand(stored[n]), {"bank": sha256(banks[n])}, n) for n in indexed_banks(stored, settings)}
    return {index_file(name): graph for name, graph in made.items() if graph is not None}


def licences(settings: BuildSettings, encoder: OnnxEncoder) -> str:
    """Of the models of VideoPatchCore."""
    lines = [f"encoder: {encoder.licence}"]
    if settings.detector:
        lines.append(f"detector: {Path(settings.detector).name}: unknown: ask whoever gave you the weights")
    return "\n".join(lines) + "\n"


def described_models(
    scene: Settings, settings: BuildSettings, models: Mapping[str, bytes], similarity: float
) -> dict[str, dict[str, Any]]:
    """What the manifest says of the models of VideoPatchCore. similarity: cosine of the encoder's features to fp32's."""
    described: dict[str, dict[str, Any]] = {
        "encoder": {
            "file": model_file("encoder"),
            "name": settings.encoder_name.rsplit("/", 1)[-1],
            "taps": list(scene.preprocessing.taps),
            "precision": settings.precision,
            "cosine_to_fp32": round(similarity, 5),
        }
    }
    if "detector" in models:
        described["detector"] = {"file": model_file("detector"), "name": Path(str(settings.detector)).name}
    return described


def describe_bundle(
    name: str,
    method: str,
    models: Mapping[str, dict[str, Any]],
    stored: Mapping[str, dict[str, np.ndarray]],
    members: Collection[str],
    settings: BuildSettings,
    footage: Mapping[str, Any],
) -> dict[str, Any]:
    """The manifest's own words: models by role and the footage, each as the manifest has it."""
    return {
        "name": name,
        "serial": settings.serial,
        "compatible": settings.compatible,
        "method": method,
        "written_by": f"edge-vad {edge_vad.__version__}",
        "models": dict(models),
        "banks": {
            bank: {
                "file": bank_file(bank),
                "rows": int(arrays["rows"].shape[0]),
                "dimensions": Stored(arrays).shape[1],
                "vectors": settings.vectors,
            }
            for bank, arrays in stored.items()
        },
        "indexes": {bank: {"file": index_file(bank)} for bank in stored if index_file(bank) in members},
        "footage": dict(footage),
    }

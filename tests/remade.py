"""Bundles with something changed inside, and every hash and binding made again around it: only the check that looks at
the change itself can refuse it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edge_vad.errors import BundleModelError
from edge_vad.manifest import (
    CALIBRATION,
    GOLDEN,
    MANIFEST,
    PREPROCESSING,
    SIGNATURE,
    bank_hashes,
    canonical_json,
    fingerprint,
    sha256,
)
from edge_vad.onnx_gate import check_model


def remade(members: Mapping[str, bytes], changes: Mapping[str, bytes], **manifest: Any) -> dict[str, bytes]:
    """The members of a bundle with ``changes`` among them, and keys of the manifest; the signature is left out."""
    plain = {**json.loads(members[MANIFEST]), **manifest}
    contents = {**{name: data for name, data in members.items() if name not in (MANIFEST, SIGNATURE)}, **changes}
    for model in plain["models"].values():
        try:
            summary = check_model(contents[model["file"]], "x")
        except BundleModelError:
            continue
        model["inputs"], model["outputs"] = summary.inputs, summary.outputs
        model["operators"] = summary.operators
    features = fingerprint({role: contents[m["file"]] for role, m in plain["models"].items()}, contents[PREPROCESSING])
    if features != plain["features"]:
        plain["features"] = features
        for bank in plain["banks"].values():
            contents[bank["file"]] = with_metadata(contents[bank["file"]], {"features": features})
    for name, index in plain.get("indexes", {}).items():
        bank_hash = sha256(contents[plain["banks"][name]["file"]])
        contents[index["file"]] = with_metadata(contents[index["file"]], {"bank": bank_hash})
    bound = {"features": features, "banks": bank_hashes({n: contents[b["file"]] for n, b in plain["banks"].items()})}
    if CALIBRATION not in changes:
        contents[CALIBRATION] = canonical_json({**json.loads(contents[CALIBRATION]), **bound})
    if GOLDEN not in changes or contents[GOLDEN][8:9] == b"{":
        calibration = {**bound, "calibration": sha256(contents[CALIBRATION])}
        contents[GOLDEN] = with_metadata(contents[GOLDEN], calibration)
    plain["files"] = {name: {"size": len(data), "sha256": sha256(data)} for name, data in contents.items()}
    return {MANIFEST: canonical_json(plain), **{name: contents[name] for name in sorted(contents)}}


def with_metadata(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """A safetensors file that says something else of itself."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header["__metadata__"] = {**header.get("__metadata__", {}), **metadata}
    return tensor_file(header, data[8 + size :])


def tensor_file(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file of any header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return len(text).to_bytes(8, "little") + text + data

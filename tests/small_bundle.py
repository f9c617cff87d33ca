"""The smallest bundle that is whole: it cannot run, but everything about the file can be checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_vad.bundle import MANIFEST, canonical_json, make_manifest, write_bundle

MEMBERS = {
    "encoder/encoder.onnx": b"an encoder",
    "bank/spatial.safetensors": b"a bank",
    "preprocessing.json": b'{"size":[1,2]}',
    "calibration.json": b"{}",
    "golden/golden.safetensors": b"golden",
    "LICENSES.txt": b"free",
}
DESCRIPTION: dict[str, Any] = {
    "name": "site",
    "method": "videopatchcore",
    "models": {"encoder": {"file": "encoder/encoder.onnx"}},
    "banks": {"spatial": {"file": "bank/spatial.safetensors"}},
}


def write(path: Path) -> Path:
    write_bundle(path, MEMBERS, DESCRIPTION)
    return path


def manifest() -> dict[str, Any]:
    return make_manifest(MEMBERS, DESCRIPTION)


def with_manifest(changed: dict[str, Any], members: dict[str, bytes] = MEMBERS) -> dict[str, bytes]:
    """The members of a bundle under another manifest."""
    return {MANIFEST: canonical_json(changed), **{name: members[name] for name in sorted(members)}}

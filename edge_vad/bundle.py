"""The portable model delivery: one file with everything that a device needs, checked before anything is used.

Layout (docs/bundle.md): manifest.json, encoder/*.onnx, detector/*.onnx, bank/*.safetensors, preprocessing.json,
calibration.json, golden/golden.safetensors, LICENSES.txt. The manifest lists size and sha256 of every other member and
binds them: banks to the encoder's fingerprint, the calibration to both. There is no pickle and no YAML in a bundle.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_vad import archive
from edge_vad.errors import BundleFormatError, BundleIntegrityError, BundleVersionError
from edge_vad.files import write_atomically
from edge_vad.types import Float32
from edge_vad.vectors import expand

FORMAT = "edge-vad-bundle"
SCHEMA = (1, 0)
MANIFEST = "manifest.json"
PREPROCESSING = "preprocessing.json"
CALIBRATION = "calibration.json"
GOLDEN = "golden/golden.safetensors"


@dataclass(frozen=True)
class Bundle:
    """A verified bundle in memory. manifest: what it is; members: the verified bytes by name."""

    manifest: dict[str, Any]
    members: Mapping[str, bytes]

    @property
    def method(self) -> str:
        """Name of the method that runs it."""
        return str(self.manifest["method"])

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Everything that decides what a feature means."""
        return _json(self.members[PREPROCESSING], PREPROCESSING)

    @property
    def calibration(self) -> dict[str, Any]:
        """Statistics of normal footage, weights, threshold, and when events start and end."""
        return _json(self.members[CALIBRATION], CALIBRATION)

    @property
    def bank_names(self) -> list[str]:
        """Names of the memory banks."""
        return sorted(self.manifest["banks"])

    @property
    def n_bytes(self) -> int:
        """Size of the bundle file."""
        return len(archive.pack(self.members))

    def model(self, role: str) -> bytes:
        """ONNX bytes of the ``encoder`` or the ``detector``."""
        entry = self.manifest["models"].get(role)
        if entry is None:
            raise BundleFormatError(f"the bundle has no {role}; build it again")
        return self.members[entry["file"]]

    def rows(self, bank: str) -> Float32:
        """Rows (m, c) float32 of a memory bank."""
        name = self.manifest["banks"][bank]["file"]
        try:
            return expand(tensors(self.members[name], name))
        except ValueError as error:
            raise BundleFormatError(f"{name}: {error}") from error

    def golden(self) -> dict[str, np.ndarray]:
        """Frames and the values that a healthy installation computes from them."""
        return tensors(self.members[GOLDEN], GOLDEN)


def tensors(data: bytes, where: str) -> dict[str, np.ndarray]:
    """Arrays of a safetensors member; BundleFormatError when it is malformed."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(data))
    except (SafetensorError, ValueError, KeyError) as error:
        raise BundleFormatError(f"{where}: not a safetensors file: {error}") from error


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one UTF-8 text of a JSON value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def fingerprint(models: Mapping[str, bytes], preprocessing: bytes) -> str:
    """What a feature depends on: the models and everything that is done to pixels before and after them."""
    return sha256(canonical_json({"models": {r: sha256(m) for r, m in models.items()}, "pre": sha256(preprocessing)}))


def make_manifest(members: Mapping[str, bytes], description: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest over ``members``: description, format, schema, files with hashes, and the bindings between them."""
    models = {role: members[entry["file"]] for role, entry in description["models"].items()}
    features = fingerprint(models, members[PREPROCESSING])
    banks = {
        name: {**entry, "features": features, "sha256": sha256(members[entry["file"]])}
        for name, entry in description["banks"].items()
    }
    return {
        **description,
        "format": FORMAT,
        "schema": list(SCHEMA),
        "features": features,
        "banks": banks,
        "calibration": {"features": features, "banks": sha256(canonical_json(banks))},
        "files": {name: {"size": len(data), "sha256": sha256(data)} for name, data in members.items()},
    }


def write_bundle(path: Path, members: Mapping[str, bytes], description: Mapping[str, Any]) -> Bundle:
    """Write a bundle atomically: the file is complete or not there. Raises OutputError."""
    manifest = make_manifest(members, description)
    ordered = {MANIFEST: canonical_json(manifest), **{name: members[name] for name in sorted(members)}}
    write_atomically(path, archive.pack(ordered))
    return Bundle(manifest, ordered)


def read_bundle(path: str | Path) -> Bundle:
    """Read and verify a bundle: container, schema, every size and hash, every binding; only then is it returned.

    Raises BundleFormatError, BundleVersionError or BundleIntegrityError, each in one line that names the member.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BundleFormatError(f"{path}: the bundle cannot be read: {error.strerror}") from error
    members = archive.unpack(data, str(path))
    if next(iter(members), None) != MANIFEST:
        raise BundleFormatError(f"{path}: not a bundle: its first member is not {MANIFEST}")
    manifest = _json(members[MANIFEST], f"{path}: {MANIFEST}")
    _check_schema(manifest, path)
    _check_files(manifest, members, path)
    _check_bindings(manifest, members, path)
    return Bundle(manifest, members)


def _json(data: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
        canonical = canonical_json(value)  # refuses NaN, which json.loads reads
    except (ValueError, RecursionError) as error:
        raise BundleFormatError(f"{where}: not valid JSON") from error
    if not isinstance(value, dict) or canonical != data:
        raise BundleFormatError(f"{where}: not canonical JSON")
    return value


def _check_schema(manifest: Mapping[str, Any], path: str | Path) -> None:
    if manifest.get("format") != FORMAT:
        raise BundleFormatError(f"{path}: not an edge-vad bundle (format {manifest.get('format')!r})")
    schema = manifest.get("schema")
    if not (isinstance(schema, list) and len(schema) == 2 and all(isinstance(v, int) for v in schema)):
        raise BundleFormatError(f"{path}: the manifest's schema is not [major, minor]")
    if schema[0] != SCHEMA[0]:
        raise BundleVersionError(
            f"{path}: written for bundle schema {schema[0]}.{schema[1]}, this runtime reads {SCHEMA[0]}.x; update edge-vad"
        )


def _check_files(manifest: Mapping[str, Any], members: Mapping[str, bytes], path: str | Path) -> None:
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise BundleFormatError(f"{path}: the manifest lists no files")
    for name in sorted(set(members) - {MANIFEST} ^ set(files)):
        state = "is missing" if name in files else "is not in the manifest"
        raise BundleIntegrityError(f"{path}: {name} {state}; copy or build the bundle again")
    for name, entry in files.items():
        if entry != {"size": len(members[name]), "sha256": sha256(members[name])}:
            raise BundleIntegrityError(f"{path}: {name} does not match its hash; copy or build the bundle again")


def _check_bindings(manifest: dict[str, Any], members: Mapping[str, bytes], path: str | Path) -> None:
    try:
        contents = {name: data for name, data in members.items() if name != MANIFEST}
        again = make_manifest(contents, manifest)
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleFormatError(f"{path}: the manifest lacks {error}") from error
    for key in ("features", "banks", "calibration"):
        if manifest.get(key) != again[key]:
            raise BundleIntegrityError(f"{path}: {key} belongs to another encoder or other banks; build the bundle again")

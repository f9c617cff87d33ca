"""The portable model delivery: one file with everything that a device needs, checked before anything is used.

Layout (docs/bundle.md): manifest.json, its signature, encoder/*.onnx, detector/*.onnx, bank/*.safetensors,
index/*.safetensors, preprocessing.json, calibration.json, golden/golden.safetensors, LICENSES.txt. There is no pickle
and no YAML in a bundle. On a device it lies unpacked in a folder, with the same manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import edge_vad
from edge_vad import archive, tensorfile
from edge_vad.errors import BundleFormatError, BundleIntegrityError, BundleModelError
from edge_vad.files import read_regular, write_atomically
from edge_vad.manifest import (
    CALIBRATION,
    FORMAT,
    GOLDEN,
    MANIFEST,
    PREPROCESSING,
    SCHEMA,
    SIGNATURE,
    Manifest,
    bank_hashes_of,
    canonical_json,
    check_files,
    fingerprint,
    fingerprint_of,
    parse_json,
    parse_manifest,
    sha256,
)
from edge_vad.onnx_gate import check_model
from edge_vad.trust import UNCHECKED, Trust
from edge_vad.types import Float32
from edge_vad.vectors import Stored


@dataclass(frozen=True)
class Bundle:
    """A verified bundle in memory. members: the verified bytes by name; derived: search graphs that this device made.

    signature: what was found about it, in words.
    """

    manifest: Manifest
    members: Mapping[str, bytes]
    signature: str = ""
    derived: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Name of exactly this content: hexadecimal SHA-256 of the manifest."""
        return sha256(self.members[MANIFEST])

    @property
    def method(self) -> str:
        """Name of the method that runs it."""
        return self.manifest.method

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Everything that decides what a feature means."""
        return parse_json(self.members[PREPROCESSING], PREPROCESSING)

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(width, height) of the frames that it is for, as its preprocessing or a part of that says; None: any.

        What is wrong with it is said when a detector is opened.
        """
        found = self.preprocessing
        parts = [found, *(part for part in found.values() if isinstance(part, dict))]
        size = next((part["image_size"] for part in parts if "image_size" in part), None)
        return (size[0], size[1]) if isinstance(size, list) and [type(side) for side in size] == [int, int] else None

    @property
    def calibration(self) -> dict[str, Any]:
        """Statistics of normal footage, weights, threshold, and when events start and end."""
        return parse_json(self.members[CALIBRATION], CALIBRATION)

    @property
    def bank_names(self) -> list[str]:
        """Names of the memory banks."""
        return sorted(self.manifest.banks)

    @property
    def n_bytes(self) -> int:
        """Size of the bundle file."""
        return len(archive.pack(self.members))

    def model(self, role: str) -> bytes:
        """ONNX bytes of the ``encoder`` or the ``detector``."""
        entry = self.manifest.models.get(role)
        if entry is None:
            raise BundleFormatError(f"the bundle has no {role}; build it again")
        return self.members[entry.file]

    def rows(self, bank: str) -> Float32:
        """Rows (m, c) float32 of a memory bank; BundleFormatError when they are not what the manifest says."""
        return self.stored(bank)[:]

    def stored(self, bank: str) -> Stored:
        """The same, as they are stored."""
        entry = self.manifest.banks[bank]
        arrays = tensorfile.load(self.members[entry.file], entry.file)[0]
        try:
            rows = Stored(arrays)
        except ValueError as error:
            raise BundleFormatError(f"{entry.file}: {error}; build it again") from error
        if rows.shape != (entry.rows, entry.dimensions) or 0 in rows.shape:
            raise BundleFormatError(f"{entry.file}: not {entry.rows} x {entry.dimensions} finite numbers; build it again")
        return rows

    def graph(self, bank: str) -> bytes | None:
        """The search graph of a bank, where it was delivered or this device made one."""
        entry = self.manifest.indexes.get(bank)
        return self.members[entry.file] if entry else self.derived.get(bank)

    def golden(self) -> dict[str, np.ndarray]:
        """Frames and the values that a healthy installation computes from them."""
        return tensorfile.load(self.members[GOLDEN], GOLDEN)[0]


def make_manifest(members: Mapping[str, bytes], description: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest over ``members``: the description, completed by format, schema, fingerprint, models and hashes."""
    models: dict[str, dict[str, Any]] = {}
    for role, entry in description["models"].items():
        summary = check_model(members[entry["file"]], entry["file"])
        shapes = {"inputs": summary.inputs, "outputs": summary.outputs}
        models[role] = {**entry, **{k: {n: list(s) for n, s in v.items()} for k, v in shapes.items()}}
        models[role]["operators"] = list(summary.operators)
    return {
        "requires": {"edge_vad": "0.1"},
        "compatible": "",
        **description,
        "format": FORMAT,
        "schema": list(SCHEMA),
        "models": models,
        "features": fingerprint({r: members[m["file"]] for r, m in models.items()}, members[PREPROCESSING]),
        "files": {name: {"size": len(data), "sha256": sha256(data)} for name, data in members.items()},
    }


def write_bundle(path: Path, members: Mapping[str, bytes], description: Mapping[str, Any]) -> Bundle:
    """Write a bundle atomically: the file is complete or not there. Raises OutputError."""
    manifest = canonical_json(make_manifest(members, description))
    bundle = checked({MANIFEST: manifest, **{name: members[name] for name in sorted(members)}}, str(path), UNCHECKED)
    write_atomically(path, archive.pack(bundle.members))
    return bundle


def read_bundle(path: str | Path, trust: Trust = UNCHECKED) -> Bundle:
    """Read and verify a bundle, a ``.evb`` file or an unpacked folder; nothing is returned before all of it holds.

    In this order: limits and container, signature by policy, every size and hash, bindings, the models' rules. Raises
    one of the errors under BundleError, each in one line that names the member; no other library sees a byte before.
    """
    path = Path(path)
    try:
        if path.is_dir():
            members = _read_folder(path)
        else:
            members = archive.unpack(read_regular(path, archive.MAX_BYTES, follow=True), str(path))
    except OSError as error:
        raise BundleFormatError(f"{path}: the bundle cannot be read: {error.strerror}") from error
    return checked(members, str(path), trust)


def checked(members: Mapping[str, bytes], path: str, trust: Trust) -> Bundle:
    """The bundle of ``members``, manifest first, after every check that `read_bundle` names."""
    if next(iter(members), None) != MANIFEST:
        raise BundleFormatError(f"{path}: not a bundle: its first member is not {MANIFEST}")
    data = members[MANIFEST]
    signature = trust.check(data, members.get(SIGNATURE), path)
    manifest = parse_manifest(data, path, edge_vad.__version__)
    trust.check_target(manifest.compatible, path)
    check_files(manifest, members, path)
    _check_bindings(manifest, members, path)
    _check_models(manifest, members, path)
    return Bundle(manifest, members, signature)


def _read_folder(path: Path) -> dict[str, bytes]:
    """The members of an unpacked bundle, in the order of the archive; links and other things than files are refused."""
    names: list[str] = []
    for entry in sorted(path.iterdir()):
        inside = sorted(entry.iterdir()) if entry.is_dir() and not entry.is_symlink() else [entry]
        names += [inner.relative_to(path).as_posix() for inner in inside]
    if len(names) > archive.MAX_MEMBERS:
        raise BundleFormatError(f"{path}: more than {archive.MAX_MEMBERS} files")
    first = [name for name in (MANIFEST, SIGNATURE) if name in names]
    members: dict[str, bytes] = {}
    left = archive.MAX_BYTES
    for name in [*first, *(name for name in names if name not in first)]:
        if not archive.NAME.fullmatch(name):
            raise BundleFormatError(f"{path}: the file name {name!r} is not allowed in a bundle")
        try:
            members[name] = read_regular(path / name, left)
        except OSError as error:
            raise BundleFormatError(f"{path}: {name} cannot be read: {error.strerror}") from error
        left -= len(members[name])
    return members


def _check_bindings(manifest: Manifest, members: Mapping[str, bytes], path: str) -> None:
    """Raises BundleIntegrityError unless every file belongs to the ones it was made with (see `edge_vad.manifest`)."""
    hashes = {name: entry.sha256 for name, entry in manifest.files.items()}  # they were checked: no need to hash again
    features = fingerprint_of({r: hashes[m.file] for r, m in manifest.models.items()}, hashes[PREPROCESSING])
    banks = bank_hashes_of({name: hashes[bank.file] for name, bank in manifest.banks.items()})
    bound = {"features": features, "banks": banks}
    if manifest.features != features:
        raise BundleIntegrityError(f"{path}: the features belong to another encoder; build the bundle again")
    for bank in manifest.banks.values():
        _belongs(tensorfile.metadata(members[bank.file], f"{path}: {bank.file}"), {"features": features}, bank.file, path)
    for name, index in manifest.indexes.items():
        bank_hash = hashes[manifest.banks[name].file]
        _belongs(tensorfile.metadata(members[index.file], f"{path}: {index.file}"), {"bank": bank_hash}, index.file, path)
    parse_json(members[PREPROCESSING], f"{path}: {PREPROCESSING}")
    _belongs(parse_json(members[CALIBRATION], f"{path}: {CALIBRATION}"), bound, CALIBRATION, path)
    golden = tensorfile.metadata(members[GOLDEN], f"{path}: {GOLDEN}")
    _belongs(golden, {**bound, "calibration": hashes[CALIBRATION]}, GOLDEN, path)


def _belongs(found: Mapping[str, Any], wanted: Mapping[str, str], name: str, path: str) -> None:
    for key, value in wanted.items():
        if found.get(key) != value:
            raise BundleIntegrityError(f"{path}: {name} was made with other {key}; build the bundle again")


def _check_models(manifest: Manifest, members: Mapping[str, bytes], path: str) -> None:
    """Raises BundleModelError unless every model passes the gate and is what the manifest says of it."""
    for entry in manifest.models.values():
        summary = check_model(members[entry.file], f"{path}: {entry.file}")
        described = (entry.inputs, entry.outputs, entry.operators)
        if described != (summary.inputs, summary.outputs, summary.operators):
            raise BundleModelError(f"{path}: {entry.file}: its inputs, outputs or operators are not those of the manifest")

"""The manifest of a bundle: what it holds, what each file must hash to, and what belongs to what.

Every file that depends on another one says so itself: a bank names the fingerprint of the features that fill it, an
index the hash of its bank, the calibration both, the golden frames all three. A bundle mixed from two others does not
load, even when somebody has made its hashes again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edge_vad.errors import BundleFormatError, BundleIntegrityError, BundleVersionError
from edge_vad.strict import from_plain
from edge_vad.vectors import VectorType

FORMAT = "edge-vad-bundle"
SCHEMA = (1, 0)
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.minisig"
PREPROCESSING = "preprocessing.json"
CALIBRATION = "calibration.json"
GOLDEN = "golden/golden.safetensors"
LICENSES = "LICENSES.txt"
MAX_JSON_BYTES = 2**20
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # of a bank or model: it becomes a file name on the device
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size in bytes and hexadecimal SHA-256 of a member."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A network. inputs, outputs: name -> shape, -1 for an open dimension. operators: the ONNX operators it uses.

    precision decides the tolerance of the self-test. taps, cosine_to_fp32: of an encoder.
    """

    file: str
    name: str
    inputs: dict[str, tuple[int, ...]]
    outputs: dict[str, tuple[int, ...]]
    operators: tuple[str, ...]
    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    taps: tuple[str, ...] = ()
    cosine_to_fp32: float | None = None


@dataclass(frozen=True, slots=True)
class BankEntry:
    """A memory bank: rows x dimensions, and how its vectors are stored."""

    file: str
    rows: int
    dimensions: int
    vectors: VectorType


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """A search graph over the bank of the same name: a cache that can be made again from it."""

    file: str


@dataclass(frozen=True, slots=True)
class FootageEntry:
    """The normal footage. ratio: part of its features that the banks keep."""

    clips: int
    frames_processed: int
    ratio: float


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle is. serial: grows with every release, so that an old bundle is not put back by accident.

    requires: what it needs to run, by name (``edge_vad``: the oldest runtime). compatible: the devices it is for; empty
    for all. features: fingerprint of models and preprocessing. files: every member but manifest and signature.
    """

    format: str
    schema: tuple[int, int]
    name: str
    serial: int
    method: str
    written_by: str
    requires: dict[str, str]
    compatible: str
    models: dict[str, ModelEntry]
    banks: dict[str, BankEntry]
    features: str
    footage: FootageEntry
    files: dict[str, FileEntry]
    indexes: dict[str, IndexEntry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.serial < 0:
            raise ValueError(f"serial must not be negative, found {self.serial}")
        for name in {**self.models, **self.banks}:
            if not _PART.fullmatch(name):
                raise ValueError(f"the name {name!r} is not allowed")
        named = [PREPROCESSING, CALIBRATION, GOLDEN, LICENSES]
        named += [model.file for model in self.models.values()]
        named += [entry.file for entries in (self.banks, self.indexes) for entry in entries.values()]
        for name in named:
            if name not in self.files:
                raise ValueError(f"{name!r} is not among the files")
        if len(set(named)) < len(named):
            raise ValueError("one file has two meanings")
        for name in self.indexes:
            if name not in self.banks:
                raise ValueError(f"an index for the bank {name!r}, which is not there")


def sha256(data: bytes | memoryview) -> str:
    """Hexadecimal SHA-256."""
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one UTF-8 text of a JSON value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode()


def parse_json(data: bytes, where: str) -> dict[str, Any]:
    """The object of a canonical JSON text without control characters; BundleFormatError for every other text."""
    if len(data) > MAX_JSON_BYTES:
        raise BundleFormatError(f"{where}: {len(data)} bytes of JSON; at most {MAX_JSON_BYTES} are read")
    try:
        value = json.loads(data, parse_int=_integer)
        canonical = canonical_json(value)  # refuses NaN, which json.loads reads
        printable = not any(_CONTROL.search(text) for text in _texts(value))
    except (ValueError, RecursionError) as error:
        raise BundleFormatError(f"{where}: not valid JSON") from error
    if not isinstance(value, dict) or canonical != data:
        raise BundleFormatError(f"{where}: not canonical JSON")
    if not printable:  # it would end up in messages and on terminals
        raise BundleFormatError(f"{where}: control characters in a text")
    return value


def _integer(text: str) -> int:
    """64 bits: what every reader has, and what every float can be made of."""
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError("an integer of more than 64 bits")
    return value


def _texts(value: Any) -> Iterator[str]:
    """Every key and text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _texts(inner)


def fingerprint(models: Mapping[str, bytes], preprocessing: bytes) -> str:
    """What a feature depends on: the models by role, and everything that is done to pixels before and after them."""
    return fingerprint_of({role: sha256(model) for role, model in models.items()}, sha256(preprocessing))


def fingerprint_of(models: Mapping[str, str], preprocessing: str) -> str:
    """`fingerprint` from the hashes of the files."""
    return sha256(canonical_json({"models": dict(models), "pre": preprocessing}))


def bank_hashes(banks: Mapping[str, bytes]) -> str:
    """One hash over the files of all banks by name."""
    return bank_hashes_of({name: sha256(data) for name, data in banks.items()})


def bank_hashes_of(banks: Mapping[str, str]) -> str:
    """`bank_hashes` from the hashes of the files."""
    return sha256(canonical_json(dict(banks)))


def parse_manifest(data: bytes, path: str, runtime: str) -> Manifest:
    """The manifest of canonical JSON; raises BundleFormatError, or BundleVersionError for another major schema."""
    where = f"{path}: {MANIFEST}"
    plain = parse_json(data, where)
    if plain.get("format") != FORMAT:
        raise BundleFormatError(f"{path}: not an edge-vad bundle (format {plain.get('format')!r})")
    schema = plain.get("schema")
    if not (isinstance(schema, list) and len(schema) == 2 and all(type(v) is int for v in schema)):
        raise BundleFormatError(f"{where}: the schema is not [major, minor]")
    if schema[0] != SCHEMA[0]:
        requires = plain.get("requires")
        needed = requires.get("edge_vad", "") if isinstance(requires, dict) else ""
        advice = f"install edge-vad {needed} or later" if needed else "update edge-vad, or build the bundle again"
        raise BundleVersionError(
            f"{path}: bundle schema {schema[0]}.{schema[1]}; this runtime, edge-vad {runtime}, reads {SCHEMA[0]}.x; {advice}"
        )
    manifest = from_plain(Manifest, plain, where, BundleFormatError, ignore_unknown=True)
    needed = manifest.requires.get("edge_vad", "0")
    if _version(needed) > _version(runtime):
        raise BundleVersionError(f"{path}: it needs edge-vad {needed} or later, this is {runtime}; update edge-vad")
    return manifest


def _version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version: 1.2.dev3 -> (1, 2)."""
    found = re.match(r"\d{1,6}(\.\d{1,6}){0,3}", text)
    return tuple(int(part) for part in found[0].split(".")) if found else (0,)


def check_files(manifest: Manifest, members: Mapping[str, bytes], path: str) -> None:
    """Raises BundleIntegrityError unless the members are exactly the listed ones, each with its size and hash."""
    present = set(members) - {MANIFEST, SIGNATURE}
    for name in sorted(present ^ set(manifest.files)):
        state = "is missing" if name in manifest.files else "is not in the manifest"
        raise BundleIntegrityError(f"{path}: {name} {state}; copy or build the bundle again")
    for name, entry in manifest.files.items():
        if entry.size != len(members[name]) or entry.sha256 != sha256(members[name]):
            raise BundleIntegrityError(f"{path}: {name} does not match its hash; copy or build the bundle again")

"""A bundle with something else in it and every hash and binding made again: what only the self-test can find."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_vad import tensorfile
from edge_vad.bundle import read_bundle, write_bundle
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


def altered(
    source: Path,
    out: Path,
    *,
    encoder: bytes | None = None,
    golden: Mapping[str, np.ndarray] | None = None,
    serial: int | None = None,
) -> Path:
    """A copy with another encoder, other golden arrays or another serial."""
    bundle = read_bundle(source)
    members = {name: data for name, data in bundle.members.items() if name not in (MANIFEST, SIGNATURE)}
    description = json.loads(bundle.members[MANIFEST])
    description["serial"] = description["serial"] if serial is None else serial
    if encoder is not None:
        members[bundle.manifest.models["encoder"].file] = encoder
    models = {role: members[model.file] for role, model in bundle.manifest.models.items()}
    features = fingerprint(models, members[PREPROCESSING])
    for bank in bundle.manifest.banks.values():
        arrays, said = tensorfile.load(members[bank.file], bank.file)
        members[bank.file] = tensorfile.save(arrays, {**said, "features": features})
    banks = bank_hashes({name: members[bank.file] for name, bank in bundle.manifest.banks.items()})
    bound = {"features": features, "banks": banks}
    members[CALIBRATION] = canonical_json({**json.loads(members[CALIBRATION]), **bound})
    arrays, said = tensorfile.load(members[GOLDEN], GOLDEN)
    said = {**said, **bound, "calibration": sha256(members[CALIBRATION])}
    members[GOLDEN] = tensorfile.save({**arrays, **(golden or {})}, said)
    write_bundle(out, members, description)
    return out

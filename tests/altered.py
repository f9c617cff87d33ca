"""A bundle file with something else in it and every hash and binding made again: what only the self-test can find."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from remade import remade

from edge_vad import archive, tensorfile
from edge_vad.bundle import read_bundle
from edge_vad.manifest import GOLDEN


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
    arrays, said = tensorfile.load(bundle.members[GOLDEN], GOLDEN)
    changes = {GOLDEN: tensorfile.save({**arrays, **(golden or {})}, said)}
    if encoder is not None:
        changes[bundle.manifest.models["encoder"].file] = encoder
    manifest = {} if serial is None else {"serial": serial}
    out.write_bytes(archive.pack(remade(bundle.members, changes, **manifest)))
    return out

"""Bundles that earlier versions built: read, trusted and scored as on the day they were made."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from remade import remade

from edge_vad import Detector, archive
from edge_vad.bundle import Bundle, read_bundle
from edge_vad.errors import BundleSignatureError, BundleVersionError
from edge_vad.manifest import MANIFEST, SIGNATURE
from edge_vad.profile import load_profile
from edge_vad.signature import SecretKey
from edge_vad.trust import Trust, load_trust
from edge_vad.types import Frame

FIXTURES = Path(__file__).parent / "fixtures"
FROZEN = {"schema_1_0": "2254dcf43368a76e479994bbc927530474bfa2b12c75e8b4623009714e63a13a"}  # name -> SHA-256 of the file
SCORED = "scores of moving_blocks"


def moving_blocks(n: int = 60) -> list[Frame]:
    """Frames of 180 x 120 pixels, from plain arithmetic: nothing, faint blocks that walk, a clear one that darts."""
    rows, columns = np.indices((120, 180))
    street = (100 + rows // 2 + 12 * (columns // 20 % 2)).astype(np.uint8)
    tile = (np.indices((40, 18)).sum(axis=0) // 3 % 2 * 120 + 60).astype(np.uint8)
    frames = []
    for index in range(n):
        image = np.repeat(street[..., None], 3, axis=2)
        blocks = [(2 * index, 60, 0, 3), (index, 70, 2, 2)] if index >= 15 else []
        blocks += [(9 * ((index * 5) % 17), 75, 1, 1)] if index >= 40 else []
        for left, y, colour, faint in blocks:
            part = image[y : y + 40, left : left + 18, colour]
            part += (tile // faint) - part // faint
        luma = ((image.astype(np.uint32) @ np.array([77, 150, 29], np.uint32)) >> 8).astype(np.uint8)
        frames.append(Frame(image, luma, index / 10, index))
    return frames


def trust(name: str) -> Trust:
    return load_trust(FIXTURES / f"{name}.pub", "required")


def read(name: str) -> Bundle:
    return read_bundle(FIXTURES / f"{name}.evb", trust(name))


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_bundle_is_as_it_was(name: str) -> None:
    """The file must never be changed: it stands for all bundles of its schema that lie on devices.

    When this fails, put the file back and make the reader read it. A new schema gets a new file (fixtures/README.md).
    """
    data = (FIXTURES / f"{name}.evb").read_bytes()
    assert hashlib.sha256(data).hexdigest() == FROZEN[name]
    assert len(data) < 150_000


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_bundle_is_read_and_trusted(name: str) -> None:
    """The file must never be changed, and this must hold for ever."""
    bundle = read(name)
    assert "_".join(map(str, ("schema", *bundle.manifest.schema))) == name
    assert "signed by trusted key" in bundle.signature
    assert bundle.bank_names == ["spatial", "temporal", "velocity"]
    assert all(np.isfinite(bundle.rows(bank)).all() for bank in bundle.bank_names)


@pytest.mark.parametrize("name", FROZEN)
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "torch"])
def test_a_frozen_bundle_scores_as_it_did(name: str, backend: str) -> None:
    """The file must never be changed, and neither must what it computes: devices in the field compare thresholds with it."""
    # The stripes of this street correlate equally well at several shifts: which one wins is a matter of the last digit. The
    # bank `compact` keeps torch's other stages out, which round in another order (docs/backends.md).
    settings = [f"inference.backend={backend}", *["inference.bank=compact"] * (backend == "torch")]
    detector = Detector.open(read(name), load_profile("desktop_cpu", settings), self_test=True)
    scores = [detector.process(frame).score for frame in moving_blocks()]
    expected = json.loads((FIXTURES / f"{name}.json").read_text())[SCORED]
    assert np.allclose(scores, expected, rtol=0.02, atol=0.02)
    assert len(set(expected)) > 10 and max(expected) > 1 > min(expected)


@pytest.mark.parametrize("name", FROZEN)
def test_a_newer_major_of_it_names_the_runtime_that_it_needs(name: str, tmp_path: Path) -> None:
    members = remade(read(name).members, {}, schema=[2, 0], requires={"edge_vad": "7.3"})
    path = tmp_path / "newer.evb"
    key = SecretKey(b"12345678", bytes(32))
    for signature in ({}, {SIGNATURE: key.sign(members[MANIFEST], "x")}):
        path.write_bytes(archive.pack({MANIFEST: members[MANIFEST], **signature, **members}))
        asked = Trust("required", (key.public,)) if signature else Trust("if-present", (key.public,))
        with pytest.raises(BundleVersionError, match=r"schema 2\.0; .* reads 1\.x; install edge-vad 7\.3 or later"):
            read_bundle(path, asked)
    with pytest.raises(BundleSignatureError):  # changed, so no longer signed by its own key
        read_bundle(path, trust(name))

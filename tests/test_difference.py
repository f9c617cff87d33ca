"""What changed between two bundles, in lines for people."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_bundle
import tiny
from remade import remade

from edge_vad import tensorfile
from edge_vad.bundle import Bundle, checked, read_bundle
from edge_vad.difference import differences
from edge_vad.manifest import MANIFEST, SIGNATURE, canonical_json
from edge_vad.signature import SecretKey
from edge_vad.trust import UNCHECKED

MEMBERS = small_bundle.with_manifest(small_bundle.manifest())
BANK = "bank/spatial.safetensors"


def bundle(changes: dict[str, bytes] | None = None, **manifest: Any) -> Bundle:
    return checked(remade(MEMBERS, changes or {}, **manifest), "x", UNCHECKED)


def calibrated(**values: Any) -> dict[str, bytes]:
    """Another calibration of the same banks."""
    bound = read(MEMBERS).calibration
    return {"calibration.json": canonical_json({**bound, **values})}


def read(members: dict[str, bytes]) -> Bundle:
    return checked(members, "x", UNCHECKED)


def test_the_same_content_has_no_difference(tmp_path: Path) -> None:
    assert differences(bundle(), bundle()) == []
    a, b = (read_bundle(small_bundle.write(tmp_path / name, serial=3)) for name in ("a.evb", "b.evb"))
    assert differences(a, b) == []


@pytest.mark.parametrize(
    ("changed", "lines"),
    [
        ({"name": "other"}, ["name: site -> other"]),
        ({"serial": 2}, ["serial: 1 -> 2 (+100.0%)"]),
        ({"method": "other"}, ["method: videopatchcore -> other"]),
        ({"compatible": "board-1"}, ["compatible:  -> board-1"]),
        ({"written_by": "edge-vad 9"}, ["written_by: a test -> edge-vad 9"]),
        (
            {"footage": {"clips": 3, "frames_processed": 1, "ratio": 0.5}},
            ["footage.clips: 1 -> 3 (+200.0%)", "footage.ratio: 1 -> 0.5 (-50.0%)"],
        ),
    ],
)
def test_a_value_of_the_manifest(changed: dict[str, Any], lines: list[str]) -> None:
    found = [line for line in differences(bundle(), bundle(**changed)) if not line.startswith("size: ")]
    assert found == lines


def test_numbers_come_with_their_change() -> None:
    a = bundle(calibrated(threshold=2.0, period_s=0.2, centre=0.0, on=True, names=["a"]))
    b = bundle(calibrated(threshold=2.5, period_s=0.1, centre=1.0, on=False, names=["a", "b"], more=1))
    assert [line for line in differences(a, b) if line.startswith("calibration.") and "json" not in line] == [
        "calibration.centre: 0 -> 1",
        "calibration.more: none -> 1",
        "calibration.names: ['a'] -> ['a', 'b']",
        "calibration.on: True -> False",
        "calibration.period_s: 0.2 -> 0.1 (-50.0%)",
        "calibration.threshold: 2 -> 2.5 (+25.0%)",
    ]


def test_a_bank_of_another_size_and_what_follows_from_it() -> None:
    rows = tensorfile.save({"rows": np.ones((5, 3), np.float16)}, tensorfile.metadata(MEMBERS[BANK], "x"))
    larger = {"spatial": {"file": BANK, "rows": 5, "dimensions": 3, "vectors": "fp16"}}
    lines = differences(bundle(), bundle({BANK: rows}, banks=larger))
    assert lines[0] == "banks.spatial.rows: 2 -> 5 (+150.0%)"
    before = len(MEMBERS[BANK])
    assert f"{BANK}: {before:,} bytes -> {before + 18:,} bytes" in lines
    assert lines[-1].startswith("size: ") and lines[-1].endswith("%)")
    assert not any("features" in line or "sha256" in line for line in lines)  # hashes follow from the rest


def test_other_content_of_the_same_size() -> None:
    lines = differences(bundle(), bundle({"LICENSES.txt": b"FREE 0"}))
    assert lines == ["LICENSES.txt: 6 bytes -> 6 bytes, other content"]


def test_a_file_that_is_added_or_gone() -> None:
    more = bundle({"NOTES.txt": b"hello"})
    assert "NOTES.txt: none -> 5 bytes" in differences(bundle(), more)
    assert "NOTES.txt: 5 bytes -> none" in differences(more, bundle())


def test_a_signature_is_named_and_not_measured() -> None:
    def signed(seed: int) -> Bundle:
        signature = SecretKey(b"12345678", bytes([seed] * 32)).sign(MEMBERS[MANIFEST], "x")
        return read({MANIFEST: MEMBERS[MANIFEST], SIGNATURE: signature, **MEMBERS})

    size: Callable[[list[str]], list[str]] = lambda lines: [line for line in lines if not line.startswith("size: ")]  # noqa: E731
    assert size(differences(read(MEMBERS), signed(1))) == [f"{SIGNATURE}: added"]
    assert size(differences(signed(1), read(MEMBERS))) == [f"{SIGNATURE}: removed"]
    assert differences(signed(1), signed(2)) == [f"{SIGNATURE}: other"]
    assert differences(signed(1), signed(1)) == []


def test_two_real_bundles(tiny_bundle: Path, footage: Path, tiny_encoder: Path, tmp_path: Path) -> None:
    from edge_vad.cli import main

    out = tmp_path / "other.evb"
    assert main(tiny.build_arguments(footage, out, tiny_encoder, "--serial", "4")) == 0
    lines = differences(read_bundle(tiny_bundle), read_bundle(out))
    assert [line for line in lines if not line.startswith("size")] == ["name: tiny -> other", "serial: 1 -> 4 (+300.0%)"]

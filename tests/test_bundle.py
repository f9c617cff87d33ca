"""What read_bundle accepts, and each thing that it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_bundle
from safetensors.numpy import save

from edge_vad import archive, bundle
from edge_vad.bundle import MANIFEST, canonical_json, read_bundle, write_bundle
from edge_vad.errors import (
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    BundleVersionError,
    EdgeVadError,
    OutputError,
)


def refused(path: Path, members: dict[str, bytes], error: type[EdgeVadError], words: str) -> None:
    path.write_bytes(archive.pack(members))
    with pytest.raises(error, match=words) as caught:
        read_bundle(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return small_bundle.write(tmp_path / "site.evb")


def test_a_whole_bundle_is_read(path: Path) -> None:
    read = read_bundle(path)
    assert read.method == "videopatchcore" and read.bank_names == ["spatial"]
    assert read.model("encoder") == b"an encoder"
    assert read.preprocessing == {"size": [1, 2]}
    assert read.n_bytes == path.stat().st_size


def test_a_missing_member(path: Path) -> None:
    members = small_bundle.with_manifest(small_bundle.manifest())
    del members["LICENSES.txt"]
    refused(path, members, BundleIntegrityError, "LICENSES.txt is missing")


def test_an_extra_member(path: Path) -> None:
    members = small_bundle.with_manifest(small_bundle.manifest()) | {"virus.bin": b"x"}
    refused(path, members, BundleIntegrityError, "virus.bin is not in the manifest")


@pytest.mark.parametrize("name", small_bundle.MEMBERS)
def test_a_changed_member_in_a_remade_archive(name: str, path: Path) -> None:
    members = small_bundle.with_manifest(small_bundle.manifest())
    for changed in (members[name][:-1] + b"?", members[name] + b"?", b""):
        refused(path, {**members, name: changed}, BundleIntegrityError, f"{name} does not match its hash")


def test_the_manifest_comes_first(path: Path) -> None:
    members = small_bundle.with_manifest(small_bundle.manifest())
    first = {"LICENSES.txt": members.pop("LICENSES.txt")}
    refused(path, first | members, BundleFormatError, f"first member is not {MANIFEST}")


@pytest.mark.parametrize("schema", [[2, 0], [0, 9]])
def test_another_major_version_says_to_update(schema: list[int], path: Path) -> None:
    members = small_bundle.with_manifest({**small_bundle.manifest(), "schema": schema})
    refused(path, members, BundleVersionError, rf"schema {schema[0]}\.{schema[1]}.*reads 1\.x; update edge-vad")


def test_a_later_minor_version_is_read(path: Path) -> None:
    path.write_bytes(archive.pack(small_bundle.with_manifest({**small_bundle.manifest(), "schema": [1, 9]})))
    assert read_bundle(path).manifest["schema"] == [1, 9]


@pytest.mark.parametrize("schema", [None, 1, [1], ["1", "0"], [1, 0, 0], "1.0"])
def test_a_schema_that_is_none(schema: Any, path: Path) -> None:
    members = small_bundle.with_manifest({**small_bundle.manifest(), "schema": schema})
    refused(path, members, BundleFormatError, "schema")


def test_another_format(path: Path) -> None:
    members = small_bundle.with_manifest({**small_bundle.manifest(), "format": "tarball"})
    refused(path, members, BundleFormatError, "'tarball'")


def test_an_encoder_of_another_bundle_with_all_hashes_made_again(path: Path) -> None:
    members = {**small_bundle.MEMBERS, "encoder/encoder.onnx": b"another"}
    changed = small_bundle.manifest()
    changed["files"] = bundle.make_manifest(members, small_bundle.DESCRIPTION)["files"]
    refused(path, small_bundle.with_manifest(changed, members), BundleIntegrityError, "features belongs to another encoder")


def test_other_preprocessing_with_all_hashes_made_again(path: Path) -> None:
    members = {**small_bundle.MEMBERS, "preprocessing.json": b'{"size":[3,4]}'}
    changed = small_bundle.manifest()
    changed["files"] = bundle.make_manifest(members, small_bundle.DESCRIPTION)["files"]
    refused(path, small_bundle.with_manifest(changed, members), BundleIntegrityError, "belongs to another encoder")


def test_a_bank_of_another_bundle_with_all_hashes_made_again(path: Path) -> None:
    members = {**small_bundle.MEMBERS, "bank/spatial.safetensors": b"other"}
    changed = small_bundle.manifest()
    changed["files"] = bundle.make_manifest(members, small_bundle.DESCRIPTION)["files"]
    refused(path, small_bundle.with_manifest(changed, members), BundleIntegrityError, "banks belongs to another")


@pytest.mark.parametrize("key", ["models", "banks", "files", "schema", "format", "features", "calibration"])
def test_a_manifest_without_one_of_its_keys(key: str, path: Path) -> None:
    changed = small_bundle.manifest()
    del changed[key]
    path.write_bytes(archive.pack(small_bundle.with_manifest(changed)))
    with pytest.raises(BundleError):
        read_bundle(path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{",
        b'{"a": 1}',
        b'{"b":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":1,"a":1}',
        b"\xff",
        b"[" * 100_000,
        b'{"a":"\\ud800"}',
    ],
)
def test_a_manifest_that_is_not_canonical_json(data: bytes, path: Path) -> None:
    refused(path, {MANIFEST: data, **small_bundle.MEMBERS}, BundleFormatError, "JSON")


def test_canonical_json_has_one_form() -> None:
    assert canonical_json({"b": [1.5, None], "a": "ü"}) == '{"a":"ü","b":[1.5,null]}'.encode()
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


def test_a_member_that_is_no_safetensors_file() -> None:
    for data in (b"", b"x" * 100, save({"rows": np.zeros(3, np.float16)})[:-1], b"\xff" * 8 + b"{}"):
        with pytest.raises(BundleFormatError, match="bank/a: not a safetensors file"):
            bundle.tensors(data, "bank/a")


def test_a_bank_without_rows_names_its_member(path: Path) -> None:
    read = read_bundle(path)
    broken = bundle.Bundle(read.manifest, {**read.members, "bank/spatial.safetensors": save({"x": np.zeros(3, np.float16)})})
    with pytest.raises(BundleFormatError, match=r"bank/spatial\.safetensors: no array 'rows'"):
        broken.rows("spatial")


def test_a_model_that_the_bundle_does_not_have(path: Path) -> None:
    with pytest.raises(BundleFormatError, match="has no detector"):
        read_bundle(path).model("detector")


def test_the_same_members_give_the_same_bytes_in_another_place_order_time_zone_and_locale(
    path: Path, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path; import small_bundle; from edge_vad.bundle import write_bundle\n"
        "members = dict(reversed(small_bundle.MEMBERS.items()))\n"
        "write_bundle(Path(sys.argv[1]), members, small_bundle.DESCRIPTION)"
    )
    other = tmp_path / "elsewhere"
    other.mkdir()
    environment = {**os.environ, "TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "99"}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", code, str(other / "site.evb")], env=environment, cwd=other, check=True)
    assert (other / "site.evb").read_bytes() == path.read_bytes()


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_bundle(tmp_path / "no" / "site.evb", small_bundle.MEMBERS, small_bundle.DESCRIPTION)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        small_bundle.write(tmp_path / "site.evb")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_replaced_in_one_step(path: Path) -> None:
    before = path.read_bytes()
    with path.open("rb") as reader:
        write_bundle(path, {**small_bundle.MEMBERS, "LICENSES.txt": b"other"}, small_bundle.DESCRIPTION)
        assert reader.read() == before
    assert path.read_bytes() != before and [p.name for p in path.parent.iterdir()] == ["site.evb"]

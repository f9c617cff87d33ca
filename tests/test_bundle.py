"""What read_bundle accepts, and each thing that it refuses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_bundle
import tiny
from onnx import helper
from safetensors.numpy import save

from edge_vad import archive, tensorfile
from edge_vad.bundle import Bundle, make_manifest, read_bundle, write_bundle
from edge_vad.errors import (
    BundleFormatError,
    BundleIntegrityError,
    BundleVersionError,
    EdgeVadError,
    OutputError,
)
from edge_vad.manifest import MANIFEST, bank_hashes, canonical_json, sha256

NAMES = list(small_bundle.members())


def refused(path: Path, members: dict[str, bytes], error: type[EdgeVadError], words: str) -> None:
    path.write_bytes(archive.pack(members))
    with pytest.raises(error, match=words) as caught:
        read_bundle(path)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return small_bundle.write(tmp_path / "site.evb")


def test_a_whole_bundle_is_read(path: Path) -> None:
    read = read_bundle(path)
    assert read.method == "videopatchcore" and read.bank_names == ["spatial"]
    assert read.model("encoder") == small_bundle.encoder()
    assert read.preprocessing == {"size": [1, 2]}
    assert np.array_equal(read.rows("spatial"), np.ones((2, 3), np.float32)) and read.rows("spatial").dtype == np.float32
    assert list(read.golden()) == ["images"]
    assert read.signature == "signature not looked at (policy off)"
    assert read.id == sha256(read.members[MANIFEST])
    assert read.n_bytes == path.stat().st_size


def test_a_missing_member(path: Path) -> None:
    members = small_bundle.with_manifest(small_bundle.manifest())
    del members["LICENSES.txt"]
    refused(path, members, BundleIntegrityError, "LICENSES.txt is missing")


def test_an_extra_member(path: Path) -> None:
    members = small_bundle.with_manifest(small_bundle.manifest()) | {"virus.bin": b"x"}
    refused(path, members, BundleIntegrityError, "virus.bin is not in the manifest")


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_member_in_a_remade_archive(name: str, path: Path) -> None:
    members = small_bundle.with_manifest(small_bundle.manifest())
    for changed in (members[name][:-1] + b"?", members[name] + b"?", b""):
        refused(path, {**members, name: changed}, BundleIntegrityError, f"{name} does not match its hash")


def test_the_manifest_comes_first(path: Path) -> None:
    members = small_bundle.with_manifest(small_bundle.manifest())
    first = {"LICENSES.txt": members.pop("LICENSES.txt")}
    refused(path, first | members, BundleFormatError, f"first member is not {MANIFEST}")


@pytest.mark.parametrize("schema", [[2, 0], [0, 9]])
def test_another_major_version_says_what_to_install(schema: list[int], path: Path) -> None:
    words = rf"schema {schema[0]}\.{schema[1]}.*reads 1\.x; "
    for requires, advice in [
        ({"edge_vad": "7.3"}, "install edge-vad 7.3 or later"),
        ({}, "update edge-vad"),
        (None, "update edge-vad"),
    ]:
        members = small_bundle.with_manifest({**small_bundle.manifest(), "schema": schema, "requires": requires})
        refused(path, members, BundleVersionError, words + advice)


def test_a_later_minor_version_is_read(path: Path) -> None:
    later = {**small_bundle.manifest(), "schema": [1, 9], "unheard_of": {"a": [1]}}
    path.write_bytes(archive.pack(small_bundle.with_manifest(later)))
    assert read_bundle(path).manifest.schema == (1, 9)


@pytest.mark.parametrize("schema", [None, 1, [1], ["1", "0"], [1, 0, 0], "1.0"])
def test_a_schema_that_is_none(schema: Any, path: Path) -> None:
    members = small_bundle.with_manifest({**small_bundle.manifest(), "schema": schema})
    refused(path, members, BundleFormatError, "schema")


def test_another_format(path: Path) -> None:
    members = small_bundle.with_manifest({**small_bundle.manifest(), "format": "tarball"})
    refused(path, members, BundleFormatError, "'tarball'")


@cache
def other_encoder() -> bytes:
    two = {"two": np.full(1, 2, np.float32)}
    shape = {"image": [1, 3, 4, 4]}
    return tiny.model([helper.make_node("Add", ["image", "two"], ["tap"])], two, shape, {"tap": [1, 3, 4, 4]})


def mixed(path: Path, contents: dict[str, bytes], words: str) -> None:
    """Members that do not belong together are refused, with all sizes and hashes made again by the writer's own code."""
    refused(path, small_bundle.with_manifest(make_manifest(contents, small_bundle.DESCRIPTION), contents),
            BundleIntegrityError, words)  # fmt: skip


def test_the_features_of_another_encoder_with_all_hashes_made_again(path: Path) -> None:
    changed = {**small_bundle.manifest(), "features": sha256(b"another")}
    refused(path, small_bundle.with_manifest(changed), BundleIntegrityError, "features belong to another encoder")


def test_an_encoder_of_another_bundle_with_all_hashes_made_again(path: Path) -> None:
    contents = {**small_bundle.members(), "encoder/encoder.onnx": other_encoder()}
    mixed(path, contents, "bank/spatial.safetensors was made with other features")


def test_other_preprocessing_with_all_hashes_made_again(path: Path) -> None:
    contents = {**small_bundle.members(), "preprocessing.json": b'{"size":[3,4]}'}
    mixed(path, contents, "bank/spatial.safetensors was made with other features")


def test_a_bank_of_another_bundle_with_all_hashes_made_again(path: Path) -> None:
    other = small_bundle.members(rows=2.0)["bank/spatial.safetensors"]
    contents = {**small_bundle.members(), "bank/spatial.safetensors": other}
    mixed(path, contents, "calibration.json was made with other banks")
    foreign = small_bundle.members(model=other_encoder())["bank/spatial.safetensors"]
    contents = {**small_bundle.members(), "bank/spatial.safetensors": foreign}
    mixed(path, contents, "bank/spatial.safetensors was made with other features")


def test_a_calibration_of_another_bundle_with_all_hashes_made_again(path: Path) -> None:
    for made_with, words in [
        ({"rows": 2.0}, "calibration.json was made with other banks"),
        ({"model": other_encoder()}, "calibration.json was made with other features"),
    ]:
        other = small_bundle.members(**made_with)["calibration.json"]  # type: ignore[arg-type]
        mixed(path, {**small_bundle.members(), "calibration.json": other}, words)
    own = small_bundle.members()
    changed = {**own, "calibration.json": own["calibration.json"].replace(b"{", b'{"a":1,', 1)}
    mixed(path, changed, "golden/golden.safetensors was made with other calibration")


def test_golden_frames_of_another_bundle_with_all_hashes_made_again(path: Path) -> None:
    for made_with, words in [({"rows": 2.0}, "other banks"), ({"model": other_encoder()}, "other features")]:
        other = small_bundle.members(**made_with)["golden/golden.safetensors"]  # type: ignore[arg-type]
        contents = {**small_bundle.members(), "golden/golden.safetensors": other}
        mixed(path, contents, f"golden/golden.safetensors was made with {words}")


def test_a_search_graph_of_another_bank_with_all_hashes_made_again(path: Path) -> None:
    contents = small_bundle.members()
    graph = {"links": np.zeros(1, np.uint32)}
    description = {**small_bundle.DESCRIPTION, "indexes": {"spatial": {"file": "index/spatial.safetensors"}}}
    right, wrong = sha256(contents["bank/spatial.safetensors"]), sha256(b"another bank")
    for bank, holds in [(right, True), (wrong, False)]:
        made = {**contents, "index/spatial.safetensors": tensorfile.save(graph, {"bank": bank})}
        members = small_bundle.with_manifest(make_manifest(made, description), made)
        if holds:
            path.write_bytes(archive.pack(members))
            assert read_bundle(path).graph("spatial") == made["index/spatial.safetensors"]
        else:
            refused(path, members, BundleIntegrityError, "index/spatial.safetensors was made with other bank;")


def test_what_belongs_together_is_named_by_every_file_itself() -> None:
    contents = small_bundle.members()
    bank = contents["bank/spatial.safetensors"]
    features = small_bundle.manifest()["features"]
    golden = tensorfile.metadata(contents["golden/golden.safetensors"], "x")
    assert tensorfile.metadata(bank, "x") == {"features": features}
    assert golden == {
        "features": features,
        "banks": bank_hashes({"spatial": bank}),
        "calibration": sha256(contents["calibration.json"]),
    }


@pytest.mark.parametrize(
    "key",
    [
        "format",
        "schema",
        "name",
        "serial",
        "method",
        "written_by",
        "requires",
        "compatible",
        "models",
        "banks",
        "features",
        "footage",
        "files",
    ],
)
def test_a_manifest_without_one_of_its_keys(key: str, path: Path) -> None:
    changed = small_bundle.manifest()
    del changed[key]
    refused(path, small_bundle.with_manifest(changed), BundleFormatError, key)


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
    refused(path, {MANIFEST: data, **small_bundle.members()}, BundleFormatError, "JSON")


def test_canonical_json_has_one_form() -> None:
    assert canonical_json({"b": [1.5, None], "a": "ü"}) == '{"a":"ü","b":[1.5,null]}'.encode()
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


def test_a_member_that_is_no_safetensors_file() -> None:
    for data in (b"", b"x" * 100, save({"rows": np.zeros(3, np.float16)})[:-1], b"\xff" * 8 + b"{}"):
        with pytest.raises(BundleFormatError, match="bank/a: not a safetensors file"):
            tensorfile.load(data, "bank/a")


def test_a_bank_without_rows_names_its_member(path: Path) -> None:
    read = read_bundle(path)
    broken = Bundle(read.manifest, {**read.members, "bank/spatial.safetensors": save({"x": np.zeros(3, np.float16)})})
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
        "members = dict(reversed(small_bundle.members(serial=1).items()))\n"
        "write_bundle(Path(sys.argv[1]), members, small_bundle.DESCRIPTION)"
    )
    other = tmp_path / "elsewhere"
    other.mkdir()
    environment = {**os.environ, "TZ": "Pacific/Kiritimati", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "99"}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    subprocess.run([sys.executable, "-c", code, str(other / "site.evb")], env=environment, cwd=other, check=True)
    assert (other / "site.evb").read_bytes() == path.read_bytes()


def test_the_same_build_gives_the_same_bytes_in_another_folder_time_zone_and_locale(
    tmp_path: Path, footage: Path, tiny_encoder: Path
) -> None:
    code = "import sys; from edge_vad.cli import main; sys.exit(main())"
    settings = [
        ("UTC", "C", "0", {}),
        ("Pacific/Kiritimati", "C.UTF-8", "4242", {"LANGUAGE": "de", "SOURCE_DATE_EPOCH": "1", "HOME": "/"}),
    ]
    made = []
    for number, (zone, locale, seed, more) in enumerate(settings):
        folder = tmp_path / f"in {number}" / ("deep" * number)
        shutil.copytree(footage, folder / "normal")
        shutil.copy(tiny_encoder, folder / "tiny.onnx")
        environment = {**os.environ, "TZ": zone, "LC_ALL": locale, "PYTHONHASHSEED": seed, **more}
        arguments = tiny.build_arguments(Path("normal"), Path("site.evb"), Path("tiny.onnx"))
        subprocess.run([sys.executable, "-c", code, *arguments], env=environment, cwd=folder, check=True)
        made.append((folder / "site.evb").read_bytes())
    assert made[0] == made[1]


def test_a_place_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_bundle(tmp_path / "no" / "site.evb", small_bundle.members(), small_bundle.DESCRIPTION)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left"):
        small_bundle.write(tmp_path / "site.evb")
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_replaced_in_one_step(path: Path) -> None:
    before = path.read_bytes()
    with path.open("rb") as reader:
        write_bundle(path, {**small_bundle.members(), "LICENSES.txt": b"other"}, small_bundle.DESCRIPTION)
        assert reader.read() == before
    assert path.read_bytes() != before and [p.name for p in path.parent.iterdir()] == ["site.evb"]

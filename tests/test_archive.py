"""The container: exactly one sequence of bytes for a content, and every other one refused."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import small_bundle

from edge_vad import archive
from edge_vad.bundle import read_bundle
from edge_vad.errors import BundleError, BundleFormatError

MEMBERS = {"manifest.json": b"{}", "bank/spatial.safetensors": b"\0\1\2", "empty.txt": b""}


def test_what_was_packed_is_unpacked_in_order() -> None:
    unpacked = archive.unpack(archive.pack(MEMBERS), "x")
    assert unpacked == MEMBERS and list(unpacked) == list(MEMBERS)


def test_any_unzip_program_reads_it() -> None:
    with zipfile.ZipFile(io.BytesIO(archive.pack(MEMBERS))) as file:
        assert file.testzip() is None
        assert {name: file.read(name) for name in file.namelist()} == MEMBERS


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Reads bytes as a bundle, without a disk between: thousands of them."""
    data = b""
    monkeypatch.setattr(Path, "read_bytes", lambda _: data)

    def read(changed: bytes) -> None:
        nonlocal data
        data = changed
        read_bundle(tmp_path / "site.evb")

    return read


def whole_bundle(folder: Path) -> bytes:
    with small_bundle.write(folder / "site.evb").open("rb") as file:
        return file.read()


def test_every_flipped_byte_of_a_bundle_is_rejected(tmp_path: Path, stored: Callable[[bytes], None]) -> None:
    whole = whole_bundle(tmp_path)
    stored(whole)
    for at in range(len(whole)):
        for flip in (0x01, 0x20, 0xFF):
            with pytest.raises(BundleError):
                stored(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])


def test_every_truncation_is_rejected(tmp_path: Path, stored: Callable[[bytes], None]) -> None:
    whole = whole_bundle(tmp_path)
    for n in range(len(whole)):
        with pytest.raises(BundleError):
            stored(whole[:n])


@pytest.mark.parametrize("more", [b"\0", b"PK\3\4", b"x" * 1000])
def test_appended_and_prepended_bytes_are_rejected(more: bytes) -> None:
    data = archive.pack(MEMBERS)
    for changed in (data + more, more + data):
        with pytest.raises(BundleFormatError):
            archive.unpack(changed, "x")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_another_program_is_refused(compression: int) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as file:
        for name, data in MEMBERS.items():
            file.writestr(name, data)
    with pytest.raises(BundleFormatError, match="not written by edge-vad"):
        archive.unpack(made.getvalue(), "x")


@pytest.mark.parametrize("name", ["../up", "/root", "a/b/c", "a\\b", ".hidden", "", "a b", "a/", "a/../b", "x\n"])
def test_names_that_could_leave_the_folder_are_refused(name: str) -> None:
    with pytest.raises(BundleFormatError, match="not allowed"):
        archive.unpack(archive.pack({name: b"x"}), "x")


def test_the_same_name_twice_is_refused() -> None:
    twice = archive.pack({"a": b"1", "b": b"2"}).replace(b"b" + b"2", b"a" + b"2")
    with pytest.raises(BundleFormatError):
        archive.unpack(twice, "x")


def test_too_many_members_are_refused() -> None:
    most = {f"m{i}": b"" for i in range(archive.MAX_MEMBERS)}
    assert len(archive.unpack(archive.pack(most), "x")) == archive.MAX_MEMBERS
    with pytest.raises(BundleFormatError, match="too many members"):
        archive.unpack(archive.pack({**most, "one-more": b""}), "x")


def test_a_header_that_claims_more_than_there_is_is_refused() -> None:
    data = bytearray(archive.pack(MEMBERS))
    data[18:22] = data[22:26] = (2**31).to_bytes(4, "little")
    with pytest.raises(BundleFormatError, match=r"cut off inside 'manifest.json'"):
        archive.unpack(bytes(data), "x")

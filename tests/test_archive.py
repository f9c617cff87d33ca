"""The container: exactly one sequence of bytes for a content, and every other one refused."""

from __future__ import annotations

import contextlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import small_bundle

from edge_vad import archive
from edge_vad.bundle import read_bundle
from edge_vad.errors import BundleError, BundleFormatError
from edge_vad.manifest import MANIFEST, SIGNATURE
from edge_vad.signature import SecretKey
from edge_vad.trust import UNCHECKED, Trust

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
    """Reads bytes as the bundle site.evb, without a disk between: thousands of them."""
    data = b""
    monkeypatch.setattr("edge_vad.bundle.read_regular", lambda *_, **__: data)

    def read(changed: bytes) -> None:
        nonlocal data
        data = changed
        read_bundle(tmp_path / "site.evb")

    return read


def rejected(read: Callable[[], object], path: Path) -> None:
    """Refused with an error of the tree under BundleError, in one line that names the file."""
    with pytest.raises(BundleError) as caught:
        read()
    message = str(caught.value)
    assert type(caught.value) is not BundleError and str(path) in message and len(message.splitlines()) == 1


def test_every_flipped_byte_of_a_bundle_is_rejected(tmp_path: Path, stored: Callable[[bytes], None]) -> None:
    whole = small_bundle.write(tmp_path / "site.evb").read_bytes()
    stored(whole)
    for at in range(len(whole)):
        for flip in (0x01, 0x20, 0xFF):
            changed = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
            rejected(lambda changed=changed: stored(changed), tmp_path / "site.evb")


def test_every_truncation_is_rejected(tmp_path: Path, stored: Callable[[bytes], None]) -> None:
    whole = small_bundle.write(tmp_path / "site.evb").read_bytes()
    for n in range(len(whole)):
        rejected(lambda n=n: stored(whole[:n]), tmp_path / "site.evb")


def unpacked(folder: Path) -> Path:
    """The small bundle as a folder."""
    for name, data in archive.unpack(small_bundle.write(folder / "site.evb").read_bytes(), "x").items():
        (folder / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "site" / name).write_bytes(data)
    return folder / "site"


@pytest.fixture
def lying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Path, bytes]:
    """The content of the unpacked small bundle by file, read from here and not from the disk: thousands of times."""
    contents = {path: path.read_bytes() for path in sorted(unpacked(tmp_path).rglob("*")) if path.is_file()}
    monkeypatch.setattr("edge_vad.bundle.read_regular", lambda path, *_, **__: contents[path])
    return contents


def test_every_flipped_byte_of_every_file_of_an_unpacked_bundle_is_rejected(
    tmp_path: Path, lying: dict[Path, bytes]
) -> None:
    """A folder has no checksum over its manifest: the signature is it, or the store, which knows the bundle's id."""
    folder = tmp_path / "site"
    bundle_id = read_bundle(folder).id
    key = SecretKey(b"12345678", bytes(32))
    signature = key.sign(lying[folder / MANIFEST], "test")
    (folder / SIGNATURE).write_bytes(signature)
    lying[folder / SIGNATURE] = signature
    trust = Trust("required", (key.public,))
    read_bundle(folder, trust)
    not_covered = range(len("untrusted comment: "), signature.index(b"\n"))  # minisign's untrusted comment
    for file, whole in sorted(lying.items()):
        asked = trust if file.name in (MANIFEST, SIGNATURE) else UNCHECKED
        for at in range(len(whole)):
            for flip in (0x01, 0xFF):
                lying[file] = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
                if file.name == SIGNATURE and at in not_covered and flip == 0x01:
                    assert read_bundle(folder, trust).id == bundle_id
                    continue
                rejected(lambda asked=asked: read_bundle(folder, asked), folder)
                if file.name == MANIFEST:  # without a signature: refused, or another bundle
                    with contextlib.suppress(BundleError):
                        assert read_bundle(folder).id != bundle_id
        lying[file] = whole
    read_bundle(folder, trust)


def test_every_truncation_of_every_file_of_an_unpacked_bundle_is_rejected(tmp_path: Path, lying: dict[Path, bytes]) -> None:
    folder = tmp_path / "site"
    for file, whole in sorted(lying.items()):
        for changed in [*(whole[:n] for n in range(len(whole))), whole + b"\n", b"\n" + whole]:
            lying[file] = changed
            rejected(lambda: read_bundle(folder), folder)
        lying[file] = whole
    read_bundle(folder)


def test_every_missing_file_of_an_unpacked_bundle_is_rejected(tmp_path: Path) -> None:
    folder = unpacked(tmp_path)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        file.unlink()
        rejected(lambda: read_bundle(folder), folder)
        file.write_bytes(whole)
    read_bundle(folder)


def test_the_unpacked_form_is_the_same_bundle(tmp_path: Path) -> None:
    folder = unpacked(tmp_path)
    packed, lying = read_bundle(tmp_path / "site.evb"), read_bundle(folder)
    assert packed.id == lying.id and packed.members == lying.members and list(packed.members) == list(lying.members)
    assert packed.n_bytes == lying.n_bytes == (tmp_path / "site.evb").stat().st_size


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
    with pytest.raises(BundleFormatError, match="'a' is there twice"):
        archive.unpack(twice, "x")


def test_too_many_members_are_refused() -> None:
    most = {f"m{i}": b"" for i in range(archive.MAX_MEMBERS)}
    assert len(archive.unpack(archive.pack(most), "x")) == archive.MAX_MEMBERS
    with pytest.raises(BundleFormatError, match="one-more.*too many"):
        archive.unpack(archive.pack({**most, "one-more": b""}), "x")


def test_a_header_that_claims_more_than_there_is_is_refused() -> None:
    data = bytearray(archive.pack(MEMBERS))
    data[18:22] = data[22:26] = (2**31).to_bytes(4, "little")
    with pytest.raises(BundleFormatError, match=r"cut off inside 'manifest.json'"):
        archive.unpack(bytes(data), "x")

"""Whose bundles run: every policy with every kind of signature, key folders, rotation, devices."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import small_bundle

from edge_vad import archive
from edge_vad.bundle import make_manifest, read_bundle
from edge_vad.errors import (
    BundleIntegrityError,
    BundleSignatureError,
    BundleTargetError,
    KeyFileError,
    MissingPackageError,
)
from edge_vad.manifest import MANIFEST, SIGNATURE
from edge_vad.signature import SecretKey
from edge_vad.trust import UNCHECKED, Policy, Trust, load_trust

OURS, THEIRS = SecretKey(b"our key!", bytes(32)), SecretKey(b"foreign!", bytes([1] * 32))
IMPOSTOR = SecretKey(OURS.key_id, bytes([2] * 32))  # the number of our key, without its secret
MEMBERS = small_bundle.with_manifest(small_bundle.manifest())


def sign(key: SecretKey, comment: str = "test") -> bytes:
    return key.sign(MEMBERS[MANIFEST], comment)


def bundle(folder: Path, signature: bytes | None, members: dict[str, bytes] | None = None) -> Path:
    path = folder / "site.evb"
    contents = members or MEMBERS
    signed = {SIGNATURE: signature} if signature is not None else {}
    path.write_bytes(archive.pack({MANIFEST: contents[MANIFEST], **signed, **contents}))
    return path


def keys(folder: Path, *installed: SecretKey) -> Path:
    trusted = folder / "trusted.d"
    trusted.mkdir(exist_ok=True)
    for key in installed:
        (trusted / f"{key.public.label}.pub").write_text(key.public.text())
    return trusted


# The table: a policy, whether our key is installed, and a signature -> what is said, or None where it is refused


SIGNATURES: dict[str, bytes | None] = {
    "unsigned": None,
    "ours": sign(OURS),
    "foreign": sign(THEIRS),
    "impostor": sign(IMPOSTOR),
    "of another manifest": OURS.sign(b"{}", "test"),
    "other comment": sign(OURS).replace(b": test\n", b": tost\n"),
    "damaged": sign(OURS)[:-20],
    "garbage": b"garbage",
    "empty": b"",
}
OFF = "signature not looked at"
TRUSTED = f"signed by trusted key {OURS.public.label}"
NOT_CHECKED = "not checked: no trusted key is installed"
WITHOUT_KEYS_IF_PRESENT = {"unsigned": "not signed"} | dict.fromkeys(
    ("ours", "foreign", "impostor", "of another manifest", "other comment"), NOT_CHECKED
)
HOLDS: dict[tuple[str, bool], dict[str, str]] = {
    ("required", True): {"ours": TRUSTED},
    ("required", False): {},
    ("if-present", True): {"ours": TRUSTED, "unsigned": "not signed"},
    ("if-present", False): WITHOUT_KEYS_IF_PRESENT,
    ("off", True): dict.fromkeys(SIGNATURES, OFF),
    ("off", False): dict.fromkeys(SIGNATURES, OFF),
    ("default", True): {"ours": TRUSTED},
    ("default", False): WITHOUT_KEYS_IF_PRESENT,
}
WHY = {
    "unsigned": "not signed, and this device requires it",
    "ours": "which is not trusted here",
    "foreign": f"signed by key {THEIRS.public.label}, which is not trusted here",
    "impostor": "does not hold",
    "of another manifest": "does not hold",
    "other comment": "does not hold",
    "damaged": "not a minisign signature",
    "garbage": "not a minisign signature",
    "empty": "not a minisign signature",
}


@pytest.mark.parametrize("signature", SIGNATURES)
@pytest.mark.parametrize("installed", [True, False], ids=["with our key", "without keys"])
@pytest.mark.parametrize("policy", ["required", "if-present", "off", "default"])
def test_every_policy_with_every_signature(policy: str, installed: bool, signature: str, tmp_path: Path) -> None:
    trust = load_trust(keys(tmp_path, *([OURS] if installed else [])), policy)  # type: ignore[arg-type]
    path = bundle(tmp_path, SIGNATURES[signature])
    said = HOLDS[policy, installed].get(signature)
    if said is not None:
        assert said in read_bundle(path, trust).signature
        return
    with pytest.raises(BundleSignatureError) as caught:
        read_bundle(path, trust)
    message = str(caught.value)
    assert type(caught.value) is BundleSignatureError and message.startswith(str(path)) and message.isprintable()
    known = installed or signature in ("unsigned", "damaged", "garbage", "empty")
    assert (WHY[signature] if known else "which is not trusted here") in message


def test_the_default_is_required_as_soon_as_there_is_a_key(tmp_path: Path) -> None:
    trusted = keys(tmp_path)
    path = bundle(tmp_path, None)
    assert read_bundle(path, load_trust(trusted)).signature == "not signed"
    keys(tmp_path, OURS)
    assert load_trust(trusted).policy == "required"
    with pytest.raises(BundleSignatureError, match="requires it: edge-vad bundle sign"):
        read_bundle(path, load_trust(trusted))


def test_a_signature_that_was_taken_out_is_missed(tmp_path: Path) -> None:
    path = bundle(tmp_path, sign(OURS))
    trust = load_trust(keys(tmp_path, OURS))
    read_bundle(path, trust)
    members = archive.unpack(path.read_bytes(), "x")
    del members[SIGNATURE]
    path.write_bytes(archive.pack(members))
    with pytest.raises(BundleSignatureError, match="not signed"):
        read_bundle(path, trust)
    for name, data in members.items():  # the unpacked form too
        (tmp_path / "site" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "site" / name).write_bytes(data)
    with pytest.raises(BundleSignatureError, match="not signed"):
        read_bundle(tmp_path / "site", trust)


def test_a_signature_covers_every_member_by_its_hash(tmp_path: Path) -> None:
    trust = load_trust(keys(tmp_path, OURS))
    changed = {**MEMBERS, "LICENSES.txt": b"other"}
    with pytest.raises(BundleIntegrityError, match="LICENSES.txt does not match its hash"):
        read_bundle(bundle(tmp_path, sign(OURS), changed), trust)
    contents = {**small_bundle.members(), "LICENSES.txt": b"other"}
    remade = small_bundle.with_manifest(make_manifest(contents, small_bundle.DESCRIPTION), contents)
    with pytest.raises(BundleSignatureError, match="does not hold"):
        read_bundle(bundle(tmp_path, sign(OURS), remade), trust)


def test_the_signature_is_checked_before_anything_is_made_of_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the manifest was read")

    monkeypatch.setattr("edge_vad.bundle.parse_manifest", never)
    with pytest.raises(BundleSignatureError):
        read_bundle(bundle(tmp_path, sign(IMPOSTOR)), load_trust(keys(tmp_path, OURS)))


# Keys


def test_keys_are_rotated_by_laying_one_beside_the_other(tmp_path: Path) -> None:
    trusted = keys(tmp_path, OURS)
    old, new = sign(OURS), sign(THEIRS)

    def holds(signature: bytes) -> bool:
        try:
            read_bundle(bundle(tmp_path, signature), load_trust(trusted))
        except BundleSignatureError:
            return False
        return True

    assert (holds(old), holds(new)) == (True, False)
    keys(tmp_path, THEIRS)
    assert (holds(old), holds(new)) == (True, True)
    (trusted / f"{OURS.public.label}.pub").unlink()
    assert (holds(old), holds(new)) == (False, True)


def test_one_key_file_is_enough(tmp_path: Path) -> None:
    (tmp_path / "our.pub").write_text(OURS.public.text())
    trust = load_trust(tmp_path / "our.pub")
    assert trust.policy == "required" and [key.key for key in trust.keys] == [OURS.public.key]
    assert TRUSTED in read_bundle(bundle(tmp_path, sign(OURS)), trust).signature


def test_only_pub_files_of_a_folder_are_keys(tmp_path: Path) -> None:
    trusted = keys(tmp_path, OURS)
    (trusted / "README").write_text("not a key")
    (trusted / "old.pub~").write_text("not a key")
    (trusted / "our.key").write_text(OURS.text())
    assert [key.key for key in load_trust(trusted).keys] == [OURS.public.key]


def test_no_folder_means_no_keys(tmp_path: Path) -> None:
    assert load_trust(tmp_path / "nowhere") == Trust("if-present")
    assert load_trust(tmp_path / "nowhere", "required") == Trust("required")


@pytest.mark.parametrize("policy", ["default", "required", "if-present", "off"])
@pytest.mark.parametrize("text", ["", "garbage", OURS.text(), OURS.public.text() * 2, OURS.public.text()[:-10]])
def test_a_broken_key_is_an_error_and_not_a_missing_key(policy: Policy, text: str, tmp_path: Path) -> None:
    trusted = keys(tmp_path, THEIRS)
    (trusted / "broken.pub").write_text(text)
    for place in (trusted, trusted / "broken.pub"):
        with pytest.raises(KeyFileError, match=str(trusted / "broken.pub")):
            load_trust(place, policy)


def test_a_key_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    trusted = keys(tmp_path)
    makers = [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("nowhere"), lambda path: path.symlink_to("/dev/zero")]
    for make in makers:
        path = trusted / "a.pub"
        make(path)
        with pytest.raises(KeyFileError, match=f"{path}: the key file cannot be read"):
            load_trust(trusted)
        path.rmdir() if path.is_dir() else path.unlink()


def test_a_link_to_keys_that_are_not_there_does_not_open_the_device(tmp_path: Path) -> None:
    """The keys on a medium that is not mounted: else an unsigned bundle would run."""
    trusted = keys(tmp_path, OURS)
    (tmp_path / "link").symlink_to(trusted)
    assert load_trust(tmp_path / "link").policy == "required"
    shutil.rmtree(trusted)
    with pytest.raises(KeyFileError, match="cannot be read"):
        load_trust(tmp_path / "link")


def test_without_the_package_a_signature_is_never_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trust = load_trust(keys(tmp_path, OURS))
    path = bundle(tmp_path, sign(OURS))
    assert TRUSTED in read_bundle(path, trust).signature
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> ModuleType:
        if name.split(".")[0] == "cryptography":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.setitem(__import__("sys").modules, "cryptography", None)
    for signature in (sign_of for name, sign_of in SIGNATURES.items() if name in ("ours", "impostor", "other comment")):
        with pytest.raises(MissingPackageError, match=r"pip install 'edge-vad\[signing\]'"):
            read_bundle(bundle(tmp_path, signature), trust)
    for policy in ("if-present", "off"):  # what is not checked needs no package
        read_bundle(bundle(tmp_path, SIGNATURES["ours"]), Trust(policy))  # type: ignore[arg-type]


# Devices


@pytest.mark.parametrize(
    ("made_for", "device", "holds"),
    [
        ("", "", True),
        ("", "board-1", True),
        ("board-1", "", True),
        ("board-1", "board-1", True),
        ("board-2", "board-1", False),
        ("board-1", "board-10", False),
        ("BOARD-1", "board-1", False),
    ],
)
def test_a_bundle_for_other_devices_is_refused(made_for: str, device: str, holds: bool, tmp_path: Path) -> None:
    members = small_bundle.with_manifest({**small_bundle.manifest(), "compatible": made_for})
    path = bundle(tmp_path, None, members)
    trust = load_trust(tmp_path / "nowhere", compatible=device)
    if holds:
        assert read_bundle(path, trust).manifest.compatible == made_for
        return
    with pytest.raises(BundleTargetError, match=f"{path}: made for '{made_for}', this device is '{device}'"):
        read_bundle(path, trust)


def test_nothing_is_asked_of_a_bundle_where_nothing_is_said(tmp_path: Path) -> None:
    assert Trust("off") == UNCHECKED
    assert read_bundle(bundle(tmp_path, b"garbage")).signature == "signature not looked at (policy off)"

"""edge-vad bundle: keys, signatures, checks and descriptions from the command line."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import small_bundle
from remade import remade
from tiny import Outcome

from edge_vad import archive, tensorfile
from edge_vad.bundle import read_bundle
from edge_vad.commands.bundle import EXIT_DOES_NOT_HOLD, PASSWORD
from edge_vad.manifest import GOLDEN, MANIFEST, SIGNATURE
from edge_vad.signature import read_public_key, read_secret_key

Cli = Callable[..., Outcome]


def said(outcome: Outcome, *words: object) -> None:
    """The command did it and said so, on standard output only."""
    assert outcome.code == 0 and outcome.err == "", outcome
    for word in words:
        assert str(word) in outcome.out


def refused(outcome: Outcome, *words: object, code: int = 1) -> None:
    """The command failed on one line of standard error that holds every word."""
    assert outcome.code == code and outcome.out == "", outcome
    assert outcome.err.endswith("\n") and outcome.err[:-1].isprintable() and outcome.err.startswith("edge-vad bundle: ")
    for word in words:
        assert str(word) in outcome.err


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle that holds and that nothing can be scored with."""
    return small_bundle.write(tmp_path / "site.evb", serial=3)


@pytest.fixture
def keys(cli: Cli, tmp_path: Path) -> Path:
    """Two key pairs, ours and theirs, without passwords."""
    folder = tmp_path / "keys"
    folder.mkdir()
    for name in ("ours", "theirs"):
        said(cli("bundle", "keygen", "--out", folder / name))
    return folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# keygen


def test_keygen_writes_a_secret_and_a_public_key(cli: Cli, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        outcome = cli("bundle", "keygen", "--out", tmp_path / "site")
    finally:
        os.umask(before)
    said(outcome, f"{tmp_path}/site.key: keep it secret (no password)", f"{tmp_path}/site.pub: install it on the devices")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["site.key", "site.pub"]
    assert mode(tmp_path / "site.key") == 0o600
    secret = read_secret_key(tmp_path / "site.key", lambda: "")
    assert secret.public.key == read_public_key(tmp_path / "site.pub").key


def test_the_secret_key_is_never_readable_for_others(cli: Cli, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        said(cli("bundle", "keygen", "--out", tmp_path / "site"))
    finally:
        os.umask(before)
    assert mode(tmp_path / "site.key") == 0o600 and mode(tmp_path / "site.pub") == 0o644


@pytest.mark.parametrize("there", ["site.key", "site.pub"])
def test_keygen_never_overwrites(there: str, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / there).write_text("precious")
    refused(cli("bundle", "keygen", "--out", tmp_path / "site"), tmp_path / there, "never overwritten")
    assert [path.name for path in tmp_path.iterdir()] == [there] and (tmp_path / there).read_text() == "precious"


def test_keygen_into_a_place_that_is_not_there(cli: Cli, tmp_path: Path) -> None:
    refused(cli("bundle", "keygen", "--out", tmp_path / "no" / "site"), tmp_path / "no" / "site.key", "cannot be written")


@pytest.mark.parametrize("out", ["/", ".", "./"])
def test_keygen_into_a_folder(out: str, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(cli("bundle", "keygen", "--out", out), "is a folder; name the keys")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords at the least work that is read: 16 MiB instead of 1 GiB (test_signature.py has the full one)."""
    monkeypatch.setattr("edge_vad.signature._SCRYPT_OPERATIONS", 524_288)
    monkeypatch.setattr("edge_vad.signature._SCRYPT_MEMORY", 2**24)


def test_a_key_with_a_password(cheap: None, cli: Cli, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, "secret")
    said(cli("bundle", "keygen", "--out", tmp_path / "site", "--password"), "(with password)")
    assert mode(tmp_path / "site.key") == 0o600
    said(cli("bundle", "sign", bundle, "--key", tmp_path / "site.key"), "signed by key")
    signed = bundle.read_bytes()
    monkeypatch.setenv(PASSWORD, "wrong")
    refused(cli("bundle", "sign", bundle, "--key", tmp_path / "site.key"), tmp_path / "site.key", "wrong password")
    monkeypatch.delenv(PASSWORD)
    with Path(os.devnull).open() as nobody:
        monkeypatch.setattr("sys.stdin", nobody)
        refused(cli("bundle", "sign", bundle, "--key", tmp_path / "site.key"), f"the key has a password: set ${PASSWORD}")
    assert bundle.read_bytes() == signed


def test_an_empty_password_is_none(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSWORD, "")
    refused(cli("bundle", "keygen", "--out", tmp_path / "site", "--password"), "an empty password protects nothing")
    assert list(tmp_path.iterdir()) == []


# sign and verify


def test_sign_and_verify(cli: Cli, bundle: Path, keys: Path) -> None:
    content = read_bundle(bundle)
    label = read_public_key(keys / "ours.pub").label
    said(cli("bundle", "verify", bundle), "holds: 6 files", "1 models within the rules; not signed (policy if-present)")
    said(
        cli("bundle", "sign", bundle, "--key", keys / "ours.key"),
        f"{bundle}: signed by key {label}; trusted comment: bundle site serial 3",
    )
    signed = read_bundle(bundle)
    assert signed.id == content.id and list(signed.members)[:2] == [MANIFEST, SIGNATURE]
    assert {name: data for name, data in signed.members.items() if name != SIGNATURE} == content.members
    said(cli("bundle", "verify", bundle, "--trusted", keys / "ours.pub"), f"by trusted key {label} (policy required)")
    said(cli("bundle", "verify", bundle, "--trusted", keys), f"by trusted key {label} (policy required)")
    said(
        cli("bundle", "verify", bundle),
        f"signed by key {label}, not checked: no trusted key is installed (policy if-present)",
    )
    refused(cli("bundle", "verify", bundle, "--trusted", keys / "theirs.pub"), bundle, label, "not trusted here")


def test_signing_twice_gives_the_same_bytes_and_another_key_replaces_the_signature(
    cli: Cli, bundle: Path, keys: Path
) -> None:
    said(cli("bundle", "sign", bundle, "--key", keys / "ours.key"))
    first = bundle.read_bytes()
    said(cli("bundle", "sign", bundle, "--key", keys / "ours.key"))
    assert bundle.read_bytes() == first
    said(cli("bundle", "sign", bundle, "--key", keys / "theirs.key"))
    assert bundle.read_bytes() != first
    said(cli("bundle", "verify", bundle, "--trusted", keys / "theirs.pub"))
    refused(cli("bundle", "verify", bundle, "--trusted", keys / "ours.pub"), "not trusted here")


def test_verify_by_the_profile(cli: Cli, bundle: Path, keys: Path, tmp_path: Path) -> None:
    required, folder = "trust.signature=required", f"trust.keys={keys}"
    refused(cli("bundle", "verify", bundle, "--set", required), bundle, "not signed, and this device requires it")
    refused(cli("bundle", "verify", bundle, "--set", folder), bundle, "not signed")  # a key is installed
    said(cli("bundle", "verify", bundle, "--set", folder, "--set", "trust.signature=if-present"), "not signed")
    said(cli("bundle", "verify", bundle, "--set", folder, "--set", "trust.signature='off'"), "policy off")
    said(cli("bundle", "sign", bundle, "--key", keys / "ours.key"))
    refused(cli("bundle", "verify", bundle, "--set", required), "not trusted here")  # no key is installed
    said(cli("bundle", "verify", bundle, "--set", required, "--set", folder), "by trusted key", "policy required")
    refused(cli("bundle", "verify", bundle, "--set", "trust.signature=perhaps"), "'perhaps' is not allowed")
    (tmp_path / "device.yaml").write_text(f"name: d\ndescription: d\ntrust:\n  signature: required\n  keys: {keys}\n")
    said(cli("bundle", "verify", bundle, "--profile", tmp_path / "device.yaml"), "by trusted key")


def test_verify_for_another_device(cli: Cli, tmp_path: Path) -> None:
    members = small_bundle.with_manifest({**small_bundle.manifest(), "compatible": "board-2"})
    (tmp_path / "site.evb").write_bytes(archive.pack(members))
    path = tmp_path / "site.evb"
    said(cli("bundle", "verify", path, "--set", "trust.compatible=board-2"))
    refused(cli("bundle", "verify", path, "--set", "trust.compatible=board-1"), path, "made for 'board-2'")


def test_verify_with_no_key_or_a_broken_one(cli: Cli, bundle: Path, keys: Path, tmp_path: Path) -> None:
    refused(cli("bundle", "verify", bundle, "--trusted", tmp_path / "no.pub"), tmp_path / "no.pub", "no such key file")
    refused(cli("bundle", "verify", bundle, "--trusted", keys / "ours.key"), "not a minisign public key")
    (tmp_path / "empty").mkdir()
    refused(cli("bundle", "verify", bundle, "--trusted", tmp_path / "empty"), "not signed, and this device requires it")
    (keys / "broken.pub").write_text("x")
    refused(cli("bundle", "verify", bundle, "--trusted", keys), keys / "broken.pub", "not a minisign key file")


def test_verify_of_a_damaged_signature(cli: Cli, bundle: Path, keys: Path) -> None:
    said(cli("bundle", "sign", bundle, "--key", keys / "ours.key"))
    members = archive.unpack(bundle.read_bytes(), "x")
    members[SIGNATURE] = members[SIGNATURE].replace(b"serial 3", b"serial 4")
    bundle.write_bytes(archive.pack(members))
    refused(cli("bundle", "verify", bundle, "--trusted", keys / "ours.pub"), bundle, "does not hold; do not use it")
    said(cli("bundle", "sign", bundle, "--key", keys / "ours.key"))  # the content is whole: signing it again helps
    said(cli("bundle", "verify", bundle, "--trusted", keys / "ours.pub"))


def test_sign_leaves_what_it_cannot_sign(cli: Cli, bundle: Path, keys: Path, tmp_path: Path) -> None:
    before = bundle.read_bytes()
    refused(cli("bundle", "sign", bundle, "--key", tmp_path / "no.key"), tmp_path / "no.key", "No such file")
    refused(cli("bundle", "sign", bundle, "--key", keys / "ours.pub"), "not a minisign secret key")
    assert bundle.read_bytes() == before
    bundle.write_bytes(before[:-1])
    refused(cli("bundle", "sign", bundle, "--key", keys / "ours.key"), bundle, "damaged")
    assert bundle.read_bytes() == before[:-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "site.evb"]


def test_verify_of_an_unpacked_bundle(cli: Cli, bundle: Path, keys: Path, tmp_path: Path) -> None:
    said(cli("bundle", "sign", bundle, "--key", keys / "ours.key"))
    shutil.unpack_archive(bundle, tmp_path / "lying", "zip")
    said(cli("bundle", "verify", tmp_path / "lying", "--trusted", keys), "by trusted key")
    refused(cli("bundle", "sign", tmp_path / "lying", "--key", keys / "ours.key"), tmp_path / "lying", "cannot be written")


# check


def test_check_passes_where_it_was_built(cli: Cli, tiny_bundle: Path) -> None:
    said(cli("bundle", "check", tiny_bundle), f"{tiny_bundle}: works here: golden self-test passed with onnxruntime")


def altered(path: Path, bundle: Path, **arrays: np.ndarray) -> Path:
    """The bundle with other golden values, and every hash and binding made again."""
    members = read_bundle(bundle).members
    golden, said_of_it = tensorfile.load(members[GOLDEN], GOLDEN)
    path.write_bytes(archive.pack(remade(members, {GOLDEN: tensorfile.save({**golden, **arrays}, said_of_it)})))
    return path


def test_check_of_other_golden_values_exits_with_3(cli: Cli, tiny_bundle: Path, tmp_path: Path) -> None:
    golden = read_bundle(tiny_bundle).golden()
    path = altered(tmp_path / "same.evb", tiny_bundle)
    said(cli("bundle", "check", path))
    path = altered(tmp_path / "altered.evb", tiny_bundle, scores=golden["scores"] + np.float32(1))
    said(cli("bundle", "verify", path))  # nothing is wrong with the file
    refused(cli("bundle", "check", path), path, "golden self-test: scores", code=EXIT_DOES_NOT_HOLD)
    path = altered(tmp_path / "swapped.evb", tiny_bundle, images=golden["images"][..., ::-1])
    refused(cli("bundle", "check", path), path, "golden self-test", code=EXIT_DOES_NOT_HOLD)


def test_check_of_what_cannot_be_opened_exits_with_3(cli: Cli, bundle: Path) -> None:
    refused(cli("bundle", "check", bundle), bundle, code=EXIT_DOES_NOT_HOLD)


def test_check_asks_for_trust_first(cli: Cli, tiny_bundle: Path, keys: Path) -> None:
    refused(cli("bundle", "check", tiny_bundle, "--trusted", keys), tiny_bundle, "not signed")


def test_check_within_limits(cli: Cli, tiny_bundle: Path) -> None:
    refused(
        cli("bundle", "check", tiny_bundle, "--set", "store.self_test_s=0.01"),
        tiny_bundle,
        "took more than 0.01 s",
        code=EXIT_DOES_NOT_HOLD,
    )
    refused(cli("bundle", "check", tiny_bundle, "--set", "inference.backend=nonesuch"), "nonesuch", code=EXIT_DOES_NOT_HOLD)


# inspect and diff


def test_inspect_for_people(cli: Cli, tiny_bundle: Path) -> None:
    outcome = cli("bundle", "inspect", tiny_bundle)
    bundle = read_bundle(tiny_bundle)
    size = f"{tiny_bundle.stat().st_size:,} bytes"
    said(
        outcome,
        f"id         {bundle.id}",
        f"size       {size}",
        "signature  none",
        "encoder",
        "taps fine, coarse",
        "180x120",
    )
    for name in bundle.bank_names:
        assert f"bank       {name}" in outcome.out
    assert all(len(line) < 160 for line in outcome.out.splitlines())


def test_inspect_says_that_it_is_signed_but_not_by_whom(cli: Cli, tiny_bundle: Path, keys: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(tiny_bundle, tmp_path / "signed.evb"))
    said(cli("bundle", "sign", path, "--key", keys / "ours.key"))
    said(cli("bundle", "inspect", path), "signature  signed; whose it is: edge-vad bundle verify")


def test_inspect_for_programs(cli: Cli, tiny_bundle: Path, bundle: Path) -> None:
    outcome = cli("bundle", "inspect", tiny_bundle, "--json")
    said(outcome)
    told = json.loads(outcome.out)
    read = read_bundle(tiny_bundle)
    assert told["id"] == read.id and told["calibration"] == read.calibration and told["preprocessing"] == read.preprocessing
    assert told["manifest"] == json.loads(read.members[MANIFEST])
    said(cli("bundle", "inspect", bundle, "--json"), '"serial": 3')


def test_inspect_of_a_bundle_whose_calibration_is_none(cli: Cli, bundle: Path) -> None:
    refused(cli("bundle", "inspect", bundle), bundle, "calibration")


def test_diff(cli: Cli, tmp_path: Path) -> None:
    a, b = (small_bundle.write(tmp_path / f"{n}.evb", serial=n) for n in (1, 2))
    said(cli("bundle", "diff", a, a), "the same content")
    outcome = cli("bundle", "diff", a, b)
    said(outcome, "serial: 1 -> 2", "LICENSES.txt: 6 bytes -> 6 bytes, other content")
    assert len(outcome.out.splitlines()) == 2


# Wrong input


@pytest.mark.parametrize("action", ["inspect", "verify", "check", "sign", "diff"])
def test_every_action_refuses_what_is_no_bundle_on_one_line(action: str, cli: Cli, bundle: Path, keys: Path) -> None:
    more = {"sign": ["--key", keys / "ours.key"], "diff": [bundle]}.get(action, [])
    damaged = bundle.with_name("damaged.evb")
    damaged.write_bytes(bundle.read_bytes()[:-5])
    text = bundle.with_name("text.evb")
    text.write_text("hello")
    os.mkfifo(bundle.with_name("fifo.evb"))
    (bundle.parent / "folder").mkdir()
    for name, words in [
        ("nowhere.evb", "No such file"),
        ("damaged.evb", "damaged"),
        ("text.evb", "not a bundle"),
        ("fifo.evb", "not a regular file"),
        ("folder", "its first member is not manifest.json"),
    ]:
        refused(cli("bundle", action, bundle.parent / name, *more), bundle.parent / name, words)


def test_wrong_usage_exits_with_2(cli: Cli, bundle: Path) -> None:
    for arguments in (
        [],
        ["verify"],
        ["sign", bundle],
        ["keygen"],
        ["diff", bundle],
        ["nonesuch", bundle],
        ["inspect", bundle, "--x"],
    ):
        outcome = cli("bundle", *arguments)
        assert outcome.code == 2 and outcome.out == "" and "Traceback" not in outcome.err

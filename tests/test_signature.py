"""Signatures and keys in minisign's formats: what holds, each thing that is refused, and the real program's opinion."""

from __future__ import annotations

import base64
import hashlib
import importlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from edge_vad.errors import BundleSignatureError, KeyFileError, MissingPackageError
from edge_vad.signature import PublicKey, SecretKey, Signature, generate, label, read_public_key, read_secret_key

MINISIGN = shutil.which("minisign")
with_minisign = pytest.mark.skipif(MINISIGN is None, reason="the program minisign is not installed (apt install minisign)")
KEY = SecretKey(bytes(range(8)), bytes(range(32)))
MESSAGE, COMMENT = b'{"a":1}', "bundle site serial 7"
SIGNED = KEY.sign(MESSAGE, COMMENT)


def never() -> str:
    raise AssertionError("no password is needed")


def verify(data: bytes, message: bytes = MESSAGE, key: PublicKey = KEY.public) -> Signature:
    signature = Signature.parse(data, "site.evb")
    signature.verify(message, key, "site.evb")
    return signature


def refused(data: bytes, words: str, message: bytes = MESSAGE, key: PublicKey = KEY.public) -> None:
    with pytest.raises(BundleSignatureError, match=words) as caught:
        verify(data, message, key)
    assert str(caught.value).startswith("site.evb: ") and str(caught.value).isprintable()


def lines_of(data: bytes) -> list[str]:
    return data.decode().splitlines()


def with_line(number: int, text: str, data: bytes = SIGNED) -> bytes:
    lines = lines_of(data)
    lines[number] = text
    return "\n".join([*lines, ""]).encode()


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


# What holds


def test_a_signature_holds_for_its_message_and_key() -> None:
    signature = verify(SIGNED)
    assert signature.key_id == KEY.key_id and signature.prehashed and signature.comment == COMMENT


def test_the_same_message_and_comment_give_the_same_bytes() -> None:
    assert KEY.sign(MESSAGE, COMMENT) == SIGNED
    assert KEY.sign(MESSAGE, COMMENT + ".") != SIGNED != KEY.sign(MESSAGE + b".", COMMENT)
    assert SecretKey(KEY.key_id, KEY.seed).sign(MESSAGE, COMMENT) == SIGNED


def test_it_is_ed25519_over_blake2b_in_four_lines() -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    first, signature, comment, both = lines_of(SIGNED)
    raw = base64.b64decode(signature)
    assert first == "untrusted comment: signature by key 0706050403020100"
    assert raw[:2] == b"ED" and raw[2:10] == KEY.key_id and len(raw) == 74
    assert comment == f"trusted comment: {COMMENT}" and SIGNED.endswith(b"=\n")
    key = Ed25519PublicKey.from_public_bytes(KEY.public.key)
    key.verify(raw[10:], hashlib.blake2b(MESSAGE, digest_size=64).digest())
    key.verify(base64.b64decode(both), raw[10:] + COMMENT.encode())


def test_the_untrusted_comment_may_say_anything() -> None:
    verify(with_line(0, "untrusted comment: made by somebody else"))


def test_the_last_line_may_lack_its_end() -> None:
    verify(SIGNED.rstrip(b"\n"))


def test_keys_that_are_made_are_all_different() -> None:
    keys = [generate() for _ in range(20)]
    assert len({key.key_id for key in keys}) == len({key.seed for key in keys}) == len({k.public.key for k in keys}) == 20
    assert all(len(key.key_id) == 8 and len(key.seed) == 32 for key in keys)
    assert KEY.public.label == label(KEY.key_id) == "0706050403020100"


# What does not


def test_another_message() -> None:
    for message in (b"", MESSAGE + b"\n", MESSAGE[:-1], MESSAGE.replace(b"1", b"2"), b"x" * 10_000):
        refused(SIGNED, "by key 0706050403020100 does not hold", message)


def test_another_key_with_the_same_number() -> None:
    refused(SIGNED, "does not hold", key=PublicKey(KEY.key_id, generate().public.key))


def test_another_trusted_comment() -> None:
    for comment in ("", "bundle site serial 8", COMMENT + " ", COMMENT + "\r"):
        refused(with_line(2, f"trusted comment: {comment}"), "does not hold")


def test_the_second_signature_of_another_file() -> None:
    other = KEY.sign(b"other", COMMENT)
    refused(with_line(3, lines_of(other)[3]), "does not hold")
    refused(with_line(1, lines_of(other)[1]), "does not hold")


def test_a_prehashed_signature_is_none_of_the_old_kind_and_the_other_way_round() -> None:
    raw = base64.b64decode(lines_of(SIGNED)[1])
    refused(with_line(1, encoded(b"Ed" + raw[2:])), "does not hold")


@pytest.mark.parametrize("number", range(4))
def test_every_line_cut_or_changed(number: int) -> None:
    line = lines_of(SIGNED)[number]
    changed = [line[:n] for n in range(len(line))]
    if number in (1, 3):
        changed += [line[:i] + ("A" if line[i] != "A" else "B") + line[i + 1 :] for i in range(len(line))]
    for text in changed:
        if number == 0 and text.startswith("untrusted comment: "):
            verify(with_line(number, text))  # nobody signs this line
            continue
        refused(with_line(number, text), "not a minisign signature|does not hold")


def test_every_flipped_bit_of_both_signatures() -> None:
    for number in (1, 3):
        raw = base64.b64decode(lines_of(SIGNED)[number])
        for at in range(len(raw)):
            for bit in range(8):
                flipped = raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :]
                refused(with_line(number, encoded(flipped)), "not a minisign signature|does not hold")


def test_every_truncation() -> None:
    for n in range(len(SIGNED) - 1):
        refused(SIGNED[:n], "not a minisign signature")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n\n\n",
        SIGNED * 2,
        SIGNED + b"\n",
        SIGNED + b"more\n",
        b"\n" + SIGNED,
        b"\xef\xbb\xbf" + SIGNED,
        SIGNED.replace(b"\n", b"\r\n"),
        SIGNED.replace(b"\n", b"\r"),
        SIGNED.replace(b"untrusted comment", b"Untrusted comment"),
        SIGNED.replace(b"\ntrusted comment: ", b"\n"),
        SIGNED.decode().encode("utf-16"),
        SIGNED.replace(b"site", b"\xff"),
        b"x" * 2**20,
        b"\n" * 2**20,
    ],
)
def test_what_is_no_signature_file(data: bytes) -> None:
    refused(data, "not a minisign signature; sign the bundle again")


@pytest.mark.parametrize("number", [1, 3])
def test_base64_has_one_form(number: int) -> None:
    """Python's decoder alone would take bits after the end, spaces and line breaks."""
    line = lines_of(SIGNED)[number]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    unused_bits = alphabet[alphabet.index(line.rstrip("=")[-1]) | 1]
    other_forms = [
        line.rstrip("=")[:-1] + unused_bits + "=" * line.count("="),
        line.rstrip("="),
        line + "=",
        line + " ",
        " " + line,
        line[:10] + " " + line[10:],
        line[:10] + "\t" + line[10:],
        line.replace("/", "_").replace("+", "-") if set(line) & {"/", "+"} else line + "-",
        line[:-4],
        line + "AAAA",
        "",
    ]
    for text in other_forms:
        assert text != line
        refused(with_line(number, text), "not a minisign signature")


@pytest.mark.parametrize(("at", "value"), [(0, b"RS"), (0, b"eD"), (0, b"\0\0")])
def test_another_algorithm(at: int, value: bytes) -> None:
    raw = base64.b64decode(lines_of(SIGNED)[1])
    refused(with_line(1, encoded(raw[:at] + value + raw[at + 2 :])), "not a minisign signature")


def test_a_signature_moved_by_the_order_of_the_curve() -> None:
    """S + L verifies under a careless implementation: the same signature in other bytes."""
    order = 2**252 + 27742317777372353535851937790883648493
    raw = base64.b64decode(lines_of(SIGNED)[1])
    moved = (int.from_bytes(raw[42:], "little") + order).to_bytes(32, "little")
    refused(with_line(1, encoded(raw[:42] + moved)), "does not hold")


# Keys as files


def write(folder: Path, key: SecretKey = KEY, password: str = "") -> tuple[Path, Path]:
    (folder / "a.key").write_text(key.text(password))
    (folder / "a.pub").write_text(key.public.text())
    return folder / "a.key", folder / "a.pub"


def test_keys_survive_their_files(tmp_path: Path) -> None:
    secret, public = write(tmp_path)
    assert read_secret_key(secret, never) == KEY
    assert read_public_key(public) == PublicKey(KEY.key_id, KEY.public.key, str(public))


def test_the_same_key_gives_the_same_text() -> None:
    assert KEY.text() == KEY.text() and KEY.public.text() == KEY.public.text()
    assert KEY.public.text().splitlines()[0] == "untrusted comment: minisign public key 0706050403020100"


@pytest.mark.parametrize("kind", ["key", "pub"])
def test_what_is_no_key_file(kind: str, tmp_path: Path) -> None:
    secret, public = write(tmp_path)
    path = secret if kind == "key" else public
    good = path.read_text()
    first, second = good.splitlines()
    read: Callable[[Path], object] = (lambda p: read_secret_key(p, never)) if kind == "key" else read_public_key
    wrong = [
        "",
        first,
        second,
        f"{second}\n{first}\n",
        good + good,
        good + "more\n",
        good.replace("untrusted comment: ", "comment: "),
        f"{first}\n{second[:-4]}\n",
        f"{first}\n{second[:-1]}\n",
        f"{first}\n {second}\n",
        f"{first}\n{second}AAAA\n",
        f"{first}\n{encoded(b'XX' + base64.b64decode(second)[2:])}\n",
        f"{first}\n{encoded(bytes(len(base64.b64decode(second))))}\n",
        (public if kind == "key" else secret).read_text(),
        "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        "\n" * 4000,
        "x" * 10_000,
    ]
    for text in wrong:
        path.write_text(text)
        with pytest.raises(KeyFileError) as caught:
            read(path)
        assert str(caught.value).startswith(str(path)) and str(caught.value).isprintable()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(KeyFileError, match="not a minisign key file"):
        read(path)
    path.unlink()
    with pytest.raises(KeyFileError, match="cannot be read: No such file"):
        read(path)
    os.mkfifo(path)
    with pytest.raises(KeyFileError, match="cannot be read: not a regular file"):
        read(path)


def test_every_flipped_byte_of_a_secret_key_is_found(tmp_path: Path) -> None:
    secret, _ = write(tmp_path)
    first, second = KEY.text().splitlines()
    raw = base64.b64decode(second)
    unused = range(6, 54)  # salt and work of a password that is not there
    for at in (i for i in range(len(raw)) if i not in unused):
        secret.write_text(f"{first}\n{encoded(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])}\n")
        with pytest.raises(KeyFileError):
            read_secret_key(secret, lambda: "guess")


def test_halves_of_two_keys_without_a_checksum(tmp_path: Path) -> None:
    """minisign -W writes no checksum; then the public half is it."""
    secret, _ = write(tmp_path)
    first, second = KEY.text().splitlines()
    raw = base64.b64decode(second)
    secret.write_text(f"{first}\n{encoded(raw[:-32] + bytes(32))}\n")
    assert read_secret_key(secret, never) == KEY
    other = raw[:94] + generate().public.key + bytes(32)
    secret.write_text(f"{first}\n{encoded(other)}\n")
    with pytest.raises(KeyFileError, match="its two halves do not belong together"):
        read_secret_key(secret, never)


@pytest.mark.parametrize(
    ("operations", "memory"),
    [(0, 2**30), (2**62, 2**30), (2**25, 2**62), (2**25, 0), (2**64 - 1, 2**64 - 1), (32767, 2**24)],
)
def test_a_key_file_cannot_ask_for_any_amount_of_work(operations: int, memory: int, tmp_path: Path) -> None:
    secret, _ = write(tmp_path)
    first, second = KEY.text().splitlines()
    raw = base64.b64decode(second)
    work = operations.to_bytes(8, "little") + memory.to_bytes(8, "little")
    secret.write_text(f"{first}\n{encoded(raw[:2] + b'Sc' + raw[4:38] + work + raw[54:])}\n")
    with pytest.raises(KeyFileError, match="password settings are out of range"):
        read_secret_key(secret, never)


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords at the least work that is read: 16 MiB instead of 1 GiB."""
    monkeypatch.setattr("edge_vad.signature._SCRYPT_OPERATIONS", 524_288)
    monkeypatch.setattr("edge_vad.signature._SCRYPT_MEMORY", 2**24)


def test_a_password_protects_a_key(cheap: None, tmp_path: Path) -> None:
    secret, _ = write(tmp_path, password="päss wörd")
    assert read_secret_key(secret, lambda: "päss wörd") == KEY
    assert KEY.seed not in base64.b64decode(secret.read_text().splitlines()[1])
    assert KEY.text("a") != KEY.text("a")  # another salt
    for wrong in ("", "pass word", "päss wörd ", "\0"):
        with pytest.raises(KeyFileError, match=f"{secret}: wrong password, or a damaged key file"):
            read_secret_key(secret, lambda wrong=wrong: wrong)


# Without the package


@pytest.fixture
def no_cryptography(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def import_module(name: str, package: str | None = None) -> ModuleType:
        if name.split(".")[0] == "cryptography":
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", import_module)
    monkeypatch.setitem(__import__("sys").modules, "cryptography", None)


def test_without_the_package_nothing_is_signed_made_or_accepted(no_cryptography: None) -> None:
    doers: list[Callable[[], object]] = [
        generate,
        lambda: SecretKey(KEY.key_id, KEY.seed).public,
        lambda: KEY.sign(MESSAGE, COMMENT),
        lambda: Signature.parse(SIGNED, "x").verify(MESSAGE, PublicKey(KEY.key_id, bytes(32)), "x"),
        lambda: Signature.parse(SIGNED, "x").verify(b"other", PublicKey(KEY.key_id, bytes(32)), "x"),
    ]
    for do in doers:
        with pytest.raises(MissingPackageError, match=r"pip install 'edge-vad\[signing\]'"):
            do()


# The real program


def minisign(*arguments: object, typed: str = "") -> subprocess.CompletedProcess[str]:
    assert MINISIGN
    return subprocess.run(
        [MINISIGN, *map(str, arguments)], input=typed, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture
def message(tmp_path: Path) -> Path:
    (tmp_path / "manifest.json").write_bytes(MESSAGE)
    return tmp_path / "manifest.json"


@with_minisign
def test_minisign_holds_what_is_signed_here(message: Path, tmp_path: Path) -> None:
    _, public = write(tmp_path)
    signature = tmp_path / "manifest.json.minisig"
    signature.write_bytes(SIGNED)
    ended = minisign("-V", "-m", message, "-p", public)
    assert ended.returncode == 0 and COMMENT in ended.stdout
    assert minisign("-V", "-H", "-m", message, "-P", public.read_text().splitlines()[1]).returncode == 0
    message.write_bytes(MESSAGE + b" ")
    assert minisign("-V", "-m", message, "-p", public).returncode != 0
    message.write_bytes(MESSAGE)
    signature.write_bytes(with_line(2, "trusted comment: other"))
    assert minisign("-V", "-m", message, "-p", public).returncode != 0


@with_minisign
def test_minisign_signs_with_a_key_that_is_made_here(message: Path, tmp_path: Path) -> None:
    secret, public = write(tmp_path)
    ended = minisign("-S", "-W", "-s", secret, "-m", message, "-t", "by the program")
    assert ended.returncode == 0, ended.stderr
    found = verify((tmp_path / "manifest.json.minisig").read_bytes(), key=read_public_key(public))
    assert found.comment == "by the program" and found.prehashed
    assert minisign("-R", "-s", secret, "-p", tmp_path / "again.pub").returncode == 0
    assert read_public_key(tmp_path / "again.pub").key == KEY.public.key


@with_minisign
@pytest.mark.parametrize("form", [[], ["-l"]], ids=["prehashed", "legacy"])
def test_a_key_and_signature_of_minisign_hold_here(form: list[str], message: Path, tmp_path: Path) -> None:
    secret, public = tmp_path / "m.key", tmp_path / "m.pub"
    assert minisign("-G", "-W", "-s", secret, "-p", public).returncode == 0
    assert minisign("-S", "-W", *form, "-s", secret, "-m", message).returncode == 0
    data = (tmp_path / "manifest.json.minisig").read_bytes()
    key = read_public_key(public)
    found = verify(data, key=key)
    assert found.prehashed == (form == []) and found.comment.startswith("timestamp:")
    refused(data, "does not hold", b"other", key)
    refused(with_line(2, "trusted comment: other", data), "does not hold", key=key)
    raw = base64.b64decode(lines_of(data)[1])
    refused(with_line(1, encoded((b"Ed" if found.prehashed else b"ED") + raw[2:]), data), "does not hold", key=key)
    ours = read_secret_key(secret, never)
    assert ours.public.key == key.key and ours.key_id == key.key_id
    (tmp_path / "manifest.json.minisig").write_bytes(ours.sign(MESSAGE, COMMENT))
    assert minisign("-V", "-m", message, "-p", public).returncode == 0
    assert label(key.key_id).lstrip("0") in public.read_text().splitlines()[0]  # minisign prints no leading zeros


@with_minisign
def test_a_password_of_here_opens_the_key_there(cheap: None, message: Path, tmp_path: Path) -> None:
    secret, _ = write(tmp_path, password="a password")
    assert minisign("-S", "-s", secret, "-m", message, typed="another\n").returncode != 0
    ended = minisign("-S", "-s", secret, "-m", message, typed="a password\n")
    assert ended.returncode == 0, ended.stderr
    verify((tmp_path / "manifest.json.minisig").read_bytes())


@with_minisign
def test_a_password_of_there_opens_the_key_here(tmp_path: Path) -> None:
    """At full strength: 1 GiB of memory and some seconds."""
    theirs = tmp_path / "m.key"
    assert minisign("-G", "-s", theirs, "-p", tmp_path / "m.pub", typed="theirs\ntheirs\n").returncode == 0
    assert read_secret_key(theirs, lambda: "theirs").public.key == read_public_key(tmp_path / "m.pub").key

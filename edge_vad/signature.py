"""Ed25519 signatures in the file formats of the program minisign, so that either one can sign and verify.

Source: the formats at https://jedisct1.github.io/minisign/. A signature is Ed25519 over BLAKE2b-512 of the message
(``ED``; the older ``Ed`` over the message itself is read too); a second one covers the first and the trusted comment.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_vad.errors import BundleSignatureError, KeyFileError
from edge_vad.files import read_regular
from edge_vad.plugins import require

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAX_BYTES = 4096  # of a key or signature file
PACKAGE = "edge-vad[signing]"
_SCRYPT_OPERATIONS, _SCRYPT_MEMORY = 33_554_432, 1_073_741_824  # minisign's "sensitive": N = 2^20, r = 8, p = 1
_NO_PASSWORD, _SCRYPT = b"\0\0", b"Sc"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key. key_id: 8 bytes that name it; key: 32 bytes; name: where it came from."""

    key_id: bytes
    key: bytes
    name: str = ""

    @property
    def label(self) -> str:
        """The key's number as minisign prints it."""
        return label(self.key_id)

    def text(self) -> str:
        """The content of a ``.pub`` file."""
        return f"untrusted comment: minisign public key {self.label}\n{_encode(b'Ed' + self.key_id + self.key)}\n"


@dataclass(frozen=True, slots=True)
class SecretKey:
    """A secret key. seed: 32 bytes."""

    key_id: bytes
    seed: bytes

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self.key_id, self._private().public_key().public_bytes_raw())

    def text(self, password: str = "") -> str:
        """The content of a ``.key`` file, encrypted when there is a password (needs 1 GiB of memory, as in minisign)."""
        secret = self.seed + self.public.key
        check = hashlib.blake2b(b"Ed" + self.key_id + secret, digest_size=32).digest()
        payload = self.key_id + secret + check
        kind, salt, work = _NO_PASSWORD, bytes(32), (0, 0)
        if password:
            kind, salt, work = _SCRYPT, os.urandom(32), (_SCRYPT_OPERATIONS, _SCRYPT_MEMORY)
            payload = _xor(payload, _stream(password, salt, *work))
        header = b"Ed" + kind + b"B2" + salt + b"".join(value.to_bytes(8, "little") for value in work)
        comment = "minisign encrypted secret key" if password else "minisign secret key"
        return f"untrusted comment: {comment}\n{_encode(header + payload)}\n"

    def sign(self, message: bytes, comment: str) -> bytes:
        """The ``.minisig`` file for a message; the same message and comment give the same bytes."""
        private = self._private()
        signature = private.sign(_prehash(message))
        both = private.sign(signature + comment.encode())
        first = _encode(b"ED" + self.key_id + signature)
        lines = [f"untrusted comment: signature by key {label(self.key_id)}", first, f"trusted comment: {comment}"]
        return "\n".join([*lines, _encode(both), ""]).encode()

    def _private(self) -> Ed25519PrivateKey:
        ed25519 = _ed25519()
        key: Ed25519PrivateKey = ed25519.Ed25519PrivateKey.from_private_bytes(self.seed)
        return key


@dataclass(frozen=True, slots=True)
class Signature:
    """A ``.minisig`` file. prehashed: over BLAKE2b-512 of the message; both: over signature and comment."""

    key_id: bytes
    prehashed: bool
    signature: bytes
    comment: str
    both: bytes

    @classmethod
    def parse(cls, data: bytes, where: str) -> Signature:
        """Raises BundleSignatureError when it is not a minisign signature."""
        try:
            if len(data) > MAX_BYTES:
                raise ValueError("too long")
            untrusted, first, trusted, second, *rest = data.decode().split("\n")
            raw, both = _decode(first), _decode(second)
        except ValueError as error:
            raise BundleSignatureError(f"{where}: not a minisign signature; sign the bundle again") from error
        prefixed = untrusted.startswith("untrusted comment: ") and trusted.startswith("trusted comment: ")
        if not prefixed or rest not in ([], [""]) or len(raw) != 74 or len(both) != 64 or raw[:2] not in (b"ED", b"Ed"):
            raise BundleSignatureError(f"{where}: not a minisign signature; sign the bundle again")
        return cls(raw[2:10], raw[:2] == b"ED", raw[10:], trusted.removeprefix("trusted comment: "), both)

    def verify(self, message: bytes, public: PublicKey, where: str) -> None:
        """Raises BundleSignatureError unless ``public`` made this signature of exactly ``message`` and this comment."""
        exceptions = require("cryptography.exceptions", PACKAGE, "signing and checking signatures")
        key = _ed25519().Ed25519PublicKey.from_public_bytes(public.key)
        try:
            if self.key_id != public.key_id:
                raise exceptions.InvalidSignature
            key.verify(self.signature, _prehash(message) if self.prehashed else message)
            key.verify(self.both, self.signature + self.comment.encode())
        except exceptions.InvalidSignature as error:
            raise BundleSignatureError(
                f"{where}: the signature by key {public.label} does not hold; do not use it"
            ) from error


def label(key_id: bytes) -> str:
    """A key's number as minisign prints it: 16 hexadecimal digits."""
    return key_id[::-1].hex().upper()


def generate() -> SecretKey:
    """A new key pair."""
    _ed25519()
    return SecretKey(os.urandom(8), os.urandom(32))


def read_public_key(path: Path) -> PublicKey:
    """The key of a ``.pub`` file. Raises KeyFileError."""
    raw = _key_file(path)
    if len(raw) != 42 or raw[:2] != b"Ed":
        raise KeyFileError(f"{path}: not a minisign public key; name the NAME.pub of a key pair")
    return PublicKey(raw[2:10], raw[10:], str(path))


def read_secret_key(path: Path, ask_password: Callable[[], str]) -> SecretKey:
    """The key of a ``.key`` file; ``ask_password`` is called for an encrypted one. Raises KeyFileError."""
    raw = _key_file(path)
    if len(raw) != 158 or raw[:2] != b"Ed" or raw[2:4] not in (_NO_PASSWORD, _SCRYPT) or raw[4:6] != b"B2":
        raise KeyFileError(f"{path}: not a minisign secret key; name the NAME.key of a key pair")
    salt, work, payload = raw[6:38], (raw[38:46], raw[46:54]), raw[54:]
    if raw[2:4] == _SCRYPT:
        operations, memory = (int.from_bytes(value, "little") for value in work)
        if not 32768 <= operations <= 2**26 or not 2**24 <= memory <= 2**31:
            raise KeyFileError(f"{path}: its password settings are out of range; make a new key pair")
        payload = _xor(payload, _stream(ask_password(), salt, operations, memory))
    key_id, secret, check = payload[:8], payload[8:72], payload[72:]
    right = hashlib.blake2b(b"Ed" + key_id + secret, digest_size=32).digest()
    unchecked = raw[2:4] == _NO_PASSWORD and check == bytes(32)  # minisign -W writes no checksum
    if check != right and not unchecked:
        raise KeyFileError(f"{path}: wrong password, or a damaged key file")
    key = SecretKey(key_id, secret[:32])
    if key.public.key != secret[32:]:
        raise KeyFileError(f"{path}: damaged: its two halves do not belong together")
    return key


def _key_file(path: Path) -> bytes:
    """The decoded second line of a key file."""
    try:
        lines = read_regular(path, MAX_BYTES, follow=True).decode().splitlines()
        if len(lines) != 2 or not lines[0].startswith("untrusted comment: "):
            raise ValueError
        return _decode(lines[1])
    except OSError as error:
        raise KeyFileError(f"{path}: the key file cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise KeyFileError(f"{path}: not a minisign key file") from error


def _stream(password: str, salt: bytes, operations: int, memory: int) -> bytes:
    """104 bytes from a password, with libsodium's choice of scrypt parameters for its two limits."""
    scrypt = require("cryptography.hazmat.primitives.kdf.scrypt", PACKAGE, "a key with a password")
    r = 8
    if operations < memory // 32:
        p, n_limit = 1, operations // (r * 4)
    else:
        n_limit = memory // (r * 128)
        p = min(operations // 4 // _power(n_limit), 0x3FFFFFFF) // r
    return bytes(scrypt.Scrypt(salt=salt, length=104, n=_power(n_limit), r=r, p=p).derive(password.encode()))


def _power(limit: int) -> int:
    """The power of two that libsodium takes: the smallest one above half of ``limit``."""
    n = 2
    while n <= limit // 2:
        n *= 2
    return n


def _xor(data: bytes, stream: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, stream, strict=True))


def _prehash(message: bytes) -> bytes:
    return hashlib.blake2b(message).digest()


def _encode(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _decode(text: str) -> bytes:
    """Strict base64: the one text of its bytes. ValueError for every other one."""
    try:
        raw = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    if _encode(raw) != text:
        raise ValueError("not canonical base64")
    return raw


def _ed25519() -> Any:
    return require("cryptography.hazmat.primitives.asymmetric.ed25519", PACKAGE, "signing and checking signatures")

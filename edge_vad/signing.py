"""Signing a bundle file: its manifest is signed, the signature lies beside it in the bundle."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path

from edge_vad import archive
from edge_vad.bundle import read_bundle
from edge_vad.errors import KeyFileError
from edge_vad.files import write_atomically
from edge_vad.manifest import MANIFEST, SIGNATURE
from edge_vad.signature import PublicKey, read_secret_key
from edge_vad.trust import Trust

PASSWORD = "EDGE_VAD_KEY_PASSWORD"


def sign_bundle(path: Path, key_file: Path, password: Callable[[], str]) -> tuple[PublicKey, str]:
    """Sign a bundle in place, and check it; returns the public key and the trusted comment.

    password: called for an encrypted key. Raises KeyFileError, BundleError or OutputError.
    """
    bundle = read_bundle(path)
    key = read_secret_key(key_file, password)
    comment = f"bundle {bundle.manifest.name} serial {bundle.manifest.serial}"
    contents = {name: data for name, data in bundle.members.items() if name not in (MANIFEST, SIGNATURE)}
    signature = key.sign(bundle.members[MANIFEST], comment)
    write_atomically(path, archive.pack({MANIFEST: bundle.members[MANIFEST], SIGNATURE: signature, **contents}))
    read_bundle(path, Trust("required", (key.public,)))
    return key.public, comment


def ask_password() -> str:
    """The password of a key: from the environment, or from the person at the terminal. Raises KeyFileError."""
    found = os.environ.get(PASSWORD)
    if found is not None:
        return found
    if not sys.stdin.isatty():
        raise KeyFileError(f"the key has a password: set ${PASSWORD}")
    return getpass.getpass("password of the key: ")

"""Whose bundles a device runs: a policy and a folder of trusted public keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_vad.errors import BundleSignatureError, BundleTargetError, KeyFileError
from edge_vad.signature import PublicKey, Signature, label, read_public_key

Policy = Literal["required", "if-present", "off"]


@dataclass(frozen=True, slots=True)
class Trust:
    """required: only a bundle signed by a trusted key; if-present: an unsigned one too; off: signatures are not looked at.

    Keys are rotated by laying the new one beside the old one, and taking the old one away when nothing it signed is left.
    compatible: what this device is; a bundle that names another one is refused.
    """

    policy: Policy
    keys: tuple[PublicKey, ...] = ()
    compatible: str = ""

    def check(self, manifest: bytes, signature: bytes | None, where: str) -> str:
        """What was found, in words, for people. Raises BundleSignatureError where the policy does not hold."""
        if self.policy == "off":
            return "signature not looked at (policy off)"
        if signature is None:
            if self.policy == "required":
                raise BundleSignatureError(f"{where}: not signed, and this device requires it: edge-vad bundle sign")
            return "not signed"
        parsed = Signature.parse(signature, where)
        key = next((key for key in self.keys if key.key_id == parsed.key_id), None)
        if key is None and (self.keys or self.policy == "required"):
            raise BundleSignatureError(
                f"{where}: signed by key {label(parsed.key_id)}, which is not trusted here; "
                "sign it with a trusted key, or install that key's .pub file"
            )
        if key is None:
            return f"signed by key {label(parsed.key_id)}, not checked: no trusted key is installed"
        parsed.verify(manifest, key, where)
        return f"signed by trusted key {key.label}"

    def check_target(self, compatible: str, where: str) -> None:
        """Raises BundleTargetError when a bundle was made for other devices."""
        if self.compatible and compatible not in ("", self.compatible):
            raise BundleTargetError(f"{where}: made for {compatible!r}, this device is {self.compatible!r}")


UNCHECKED = Trust("off")


def load_trust(keys: Path, policy: Policy | Literal["default"] = "default", compatible: str = "") -> Trust:
    """The trust of a ``.pub`` file, or a folder of them; no folder means no keys.

    The default policy is ``required`` as soon as there is one key, and ``if-present`` before. Raises KeyFileError.
    """
    try:
        if keys.is_dir():
            paths = sorted(path for path in keys.iterdir() if path.suffix == ".pub")
        else:  # a link that leads nowhere is not "no keys": the medium with them may be missing
            paths = [keys] * (keys.exists() or keys.is_symlink())
    except OSError as error:
        raise KeyFileError(f"{keys}: the trusted keys cannot be read: {error.strerror}") from error
    return trust_of(paths, policy, compatible)


def trust_of(paths: Sequence[Path], policy: Policy | Literal["default"] = "default", compatible: str = "") -> Trust:
    """The same, of these ``.pub`` files."""
    trusted = tuple(read_public_key(path) for path in paths)
    if policy == "default":
        policy = "required" if trusted else "if-present"
    return Trust(policy, trusted, compatible)

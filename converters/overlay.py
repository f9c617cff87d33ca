"""An overlay: everything that a unit needs, in one tar file that is the same for the same inputs.

    edge-vad-overlay/overlay.json       what it is, for whom, which bundle each camera gets
    edge-vad-overlay/SHA256SUMS         of every other file; install.sh checks it
    edge-vad-overlay/install.sh         and install.py: puts it on the unit, or takes it back
    edge-vad-overlay/requirements.txt   the wheels by version and hash
    edge-vad-overlay/wheels bundles trusted.d systemd device.yaml profile.yaml

Source: docs/provision.md.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_vad.converters.targets import Target
from edge_vad.converters.wheels import pinned

import edge_vad
from edge_vad.bundle import Bundle
from edge_vad.device import Device
from edge_vad.errors import ProfileError
from edge_vad.files import remove, sync_folder, writing
from edge_vad.manifest import sha256
from edge_vad.profile import names

TOP = "edge-vad-overlay"
SUMS = "SHA256SUMS"
UNPACKED = 1.3  # of the size of the files: compiled modules, and what file systems round up
DATE = 315532800  # 1980-01-01
SCRIPTS = ("install.sh", "install.py")
FIRST_BOOT = f"""# Runs install.sh once, when the unit starts for the first time; the overlay lies in /opt/{TOP}.
[Unit]
Description=edge-vad: install the overlay
ConditionPathExists=/opt/{TOP}/install.sh
ConditionPathExists=!/opt/{TOP}.installed
After=local-fs.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh /opt/{TOP}/install.sh
TimeoutStartSec=infinity

[Install]
WantedBy=multi-user.target
"""


@dataclass(frozen=True, slots=True)
class Parts:
    """What an overlay is put together from. bundles: by camera; profile: the text of one that is not built in."""

    target: Target
    device: Device
    config: Path
    bundles: Mapping[str, Bundle]
    files: Mapping[str, Path]
    trusted: Sequence[Path]
    wheels: Sequence[Path]
    profile: Path | None = None


def write_overlay(out: Path, parts: Parts) -> str:
    """Write it, whole or not at all; returns its id, the start of the hash of SHA256SUMS. Raises OutputError."""
    members = contents(parts)
    sums = "".join(f"{sha256(data)}  {name}\n" for name, data in sorted(members.items())).encode()
    with writing(out):
        beside = out.with_name(f".{out.name}.{os.getpid()}.new")
        try:
            with beside.open("wb") as file:
                _pack(file, {SUMS: sums, **members}, private={"device.yaml"} if _is_private(parts.config) else set())
                file.flush()
                os.fsync(file.fileno())
            beside.rename(out)
        except BaseException:
            remove(beside)
            raise
        sync_folder(out.parent)
    return sha256(sums)[:12]


def contents(parts: Parts) -> dict[str, bytes]:
    """Every file of the overlay but SHA256SUMS, by its name below the top folder."""
    here = Path(__file__).parent
    members = {
        "install.sh": (here / "install.sh").read_bytes(),
        "install.py": (here / "install_unit.py").read_bytes(),
        "device.yaml": parts.config.read_bytes(),
        "systemd/edge-vad-install.service": FIRST_BOOT.encode(),
        "trusted.d/README": b"The keys of this unit's owner.\n",
        **{f"trusted.d/{path.name}": path.read_bytes() for path in parts.trusted},
        **{f"wheels/{path.name}": path.read_bytes() for path in parts.wheels},
        **{f"bundles/{path.name}": path.read_bytes() for path in parts.files.values()},
    }
    if parts.profile:
        members["profile.yaml"] = parts.profile.read_bytes()
    hashes = {path: sha256(members[f"wheels/{path.name}"]) for path in parts.wheels}
    # pip runs from its wheel, and nobody needs it afterwards.
    kept = {path: key for path, key in hashes.items() if pinned(path)[0] != "pip"}
    lines = sorted(f"{'=='.join(pinned(path))} --hash=sha256:{key}" for path, key in kept.items())
    members["requirements.txt"] = ("\n".join(lines) + "\n").encode()
    described = json.dumps(_description(parts, members), indent=2, sort_keys=True)
    return {**members, "overlay.json": f"{described}\n".encode()}


def _description(parts: Parts, members: Mapping[str, bytes]) -> dict[str, Any]:
    device, target = parts.device, parts.target
    wheels = [zipfile.ZipFile(io.BytesIO(data)) for name, data in members.items() if name.endswith(".whl")]
    installed = sum(info.file_size for wheel in wheels for info in wheel.infolist())
    return {
        "format": 1,
        "edge_vad": f"edge-vad {edge_vad.__version__}",
        "unit": device.name,
        "target": {
            "name": target.name,
            "system": target.system,
            "architecture": target.architecture,
            "python": target.python,
        },
        "runs": {"profile": device.profile, "set": list(device.set)},
        "profile": None if device.profile in names() else device.profile,
        "cameras": {name: _camera(parts, name) for name in device.cameras},
        "installed_bytes": round(UNPACKED * installed + sum(map(len, members.values()))),
    }


def _camera(parts: Parts, name: str) -> dict[str, str]:
    camera, bundle = parts.device.cameras[name], parts.bundles[name]
    place = {"store": camera.store} if camera.store else {"path": str(camera.bundle)}
    return {"file": parts.files[name].name, "id": bundle.id, **place}


def _is_private(config: Path) -> bool:
    """A configuration that others may not read here, with passwords in it, is not for others on the unit either."""
    return not config.stat().st_mode & 0o004


def _pack(file: Any, members: Mapping[str, bytes], private: set[str]) -> None:
    """A tar with sorted names, one date and no owners."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name in sorted(members):
            info = tarfile.TarInfo(f"{TOP}/{name}")
            info.size, info.mtime = len(members[name]), DATE
            info.mode = 0o600 if name in private else 0o755 if name in SCRIPTS else 0o644
            archive.addfile(info, io.BytesIO(members[name]))


def check_parts(parts: Parts) -> None:
    """ProfileError where two files of different content would lie under one name."""
    seen: dict[str, bytes] = {}
    for path in [*parts.files.values(), *parts.trusted]:
        data = path.read_bytes()
        if seen.setdefault(path.name, data) != data:
            raise ProfileError(f"{path}: another file of that name is in the overlay; rename one of them")

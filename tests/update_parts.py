"""What the tests of updates need: releases of a signed bundle, and a unit whose service is started by a stand-in."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import tiny

from edge_vad.bundle import read_bundle
from edge_vad.cli import main

STAND_IN = Path(__file__).with_name("systemctl_stand_in.py")
OTHER_SIZE = (128, 96)
CAMERA = "synthetic:size=180x120,fps=2,anomalies=none"


@dataclass(frozen=True)
class Releases:
    """Signed by owner.key but for `unsigned`. first and second: of the camera; other: of a camera with smaller pictures,
    serial 1; smaller: the same, serial 3."""

    first: Path
    second: Path
    other: Path
    smaller: Path
    unsigned: Path
    owner: Path

    @classmethod
    def make(cls, folder: Path, footage: Path, encoder: Path) -> Releases:
        """Four quick builds."""
        small = folder / "small"
        tiny.write_clip(small / "01", 40, seed=1, size=OTHER_SIZE)
        assert main(["bundle", "keygen", "--out", str(folder / "owner")]) == 0
        built = {}
        wanted = {"first": (footage, 1), "second": (footage, 2), "other": (small, 1), "smaller": (small, 3)}
        for name, (normal, serial) in wanted.items():
            built[name] = folder / f"{name}.evb"
            assert main(tiny.build_arguments(normal, built[name], encoder, "--serial", str(serial))) == 0
        built["unsigned"] = Path(shutil.copy(built["second"], folder / "unsigned.evb"))
        for name in wanted:
            assert main(["bundle", "sign", str(built[name]), "--key", str(folder / "owner.key")]) == 0
        return cls(**built, owner=folder / "owner.pub")


def id_of(bundle: Path) -> str:
    return read_bundle(bundle).id


def program(path: Path, text: str) -> None:
    """A shell script that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def device_yaml(store: str, data: str, keys: str, runtime: str = "/run/edge-vad", camera: str = CAMERA) -> str:
    settings = f'["store.confirm_s=1", "trust.keys={keys}"]'
    return (
        f"profile: desktop_cpu\nset: {settings}\nruntime: {runtime}\ndata: {data}\nsinks: []\n"
        f'cameras: {{gate: {{source: "{camera}", store: {store}}}}}\nmedia: {{snapshots: false, clips: false}}\n'
    )


def service(config: str) -> str:
    """What `edge-vad service install` would write, without what only systemd understands."""
    command = f"{sys.executable} -m edge_vad run --config {config}"
    return f"[Service]\nType=notify\nExecStart={command}\nRestart=always\nRestartSec=1\n"

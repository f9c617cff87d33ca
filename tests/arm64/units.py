"""Units that were never there: roots with an overlay of a generated street installed in them."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from roots import Root, make_root

PROFILE = "raspberry_pi_5"
COMMAND, PYTHON = "/opt/edge-vad/current/bin/edge-vad", "/opt/edge-vad/current/bin/python"
OVERLAY = "/root/edge-vad-overlay"
STORE = "/var/lib/edge-vad/pole"
PATIENT = "store.self_test_s=600"  # emulation on a busy machine
SIZE, FPS = (360, 240), 10.0
PASSING = slice(50, 110)  # frames of the clip in which the cyclist comes into view


@dataclass(frozen=True)
class System:
    """What a unit runs. target: of edge-vad provision; more: options of it; packages: beside those of every root."""

    suite: str
    target: str
    emulated: bool = True
    more: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()


# Debian has libcamera's Python bindings and its virtual camera since trixie.
CAMERA = ("libcamera-ipa", "python3-libcamera", "python3-prctl")
SYSTEMS = {
    "bookworm": System("bookworm", "raspberry_pi_os_bookworm"),
    "trixie": System("trixie", "raspberry_pi_os_trixie", packages=CAMERA),
    # To compare a camera with: hnswlib would have to be compiled once more.
    "trixie_x86_64": System("trixie", "debian_trixie", False, ("--without", "hnswlib"), CAMERA),
}


@dataclass(frozen=True)
class Unit:
    """A root with an overlay installed. installed_s, cpu_s: what install.sh took; said: what it printed."""

    root: Root
    overlay: Path
    said: str
    installed_s: float
    cpu_s: float

    def edge_vad(self, *arguments: str, code: int = 0) -> str:
        """What a command of edge-vad prints on the unit."""
        return self.root.run(COMMAND, *arguments, code=code)


@dataclass(frozen=True)
class Footage:
    """clip: 20 s with a cyclist; short: the seconds in which he comes; bundle: signed, from the same street, with the
    defaults of a Raspberry Pi 5; key: that signed it, public."""

    clip: Path
    short: Path
    bundle: Path
    key: Path


def vad(*arguments: str | Path) -> str:
    """What a command of edge-vad prints here."""
    command = [str(Path(sys.executable).with_name("edge-vad")), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def make_footage(folder: Path) -> Footage:
    """Film, build and sign."""
    from edge_vad.cameras.synthetic import write_dataset

    write_dataset(folder / "street", seed=7, n_training=3, n_testing=1, seconds=20.0, size=SIZE)
    bundle, key = folder / "street.evb", folder / "owner"
    vad("build", "--normal", folder / "street/training/frames", "--out", bundle, "--profile", PROFILE)
    vad("bundle", "keygen", "--out", key)
    vad("bundle", "sign", bundle, "--key", key.with_suffix(".key"))
    clip, short = folder / "street/testing/frames/01", folder / "short"
    short.mkdir()
    for path in sorted(clip.iterdir())[PASSING]:
        shutil.copy(path, short)
    return Footage(clip, short, bundle, key.with_suffix(".pub"))


def make_unit(system: System, footage: Footage, folder: Path, qemu: Path) -> Unit:
    """Raises Unavailable where this machine cannot."""
    root = make_root(folder / "root", system.suite, system.packages, qemu if system.emulated else None)
    return install(root, provision(system, footage, folder))


def provision(system: System, footage: Footage, folder: Path) -> Path:
    configuration = {
        "name": "pole-1",
        "profile": PROFILE,
        "set": [PATIENT],
        "cameras": {"pole": {"source": "picamera2:0", "fps": FPS, "store": STORE}},
        "data": "/var/lib/edge-vad/data",
    }
    (folder / "device.yaml").write_text(yaml.safe_dump(configuration))
    overlay = folder / "overlay.tar"
    parts = ["--bundle", footage.bundle, "--config", folder / "device.yaml", "--trust", footage.key]
    vad("provision", "--profile", PROFILE, "--target", system.target, *parts, *system.more, "--out", overlay)
    return overlay


def install(root: Root, overlay: Path) -> Unit:
    """As a person would: the file copied, unpacked, install.sh run."""
    root.take(overlay, "/root/overlay.tar")
    root.run("tar", "-xf", "/root/overlay.tar", "-C", "/root")
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    said = root.run("sh", f"{OVERLAY}/install.sh", timeout_s=1800)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Unit(root, overlay, said, time.monotonic() - begun, cpu_s)

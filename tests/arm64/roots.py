"""Debian systems in folders, of this processor's kind or emulated, and commands that run in them without a network.

A root is unpacked and nothing of it installed (`mmdebstrap --variant=extract`): no script of a package runs, so it is there
in seconds. Commands run in namespaces of their own. The only network in there is a loopback interface that is down, and
the kernel hands aarch64 programs to qemu there alone (binfmt_misc of a user namespace, since Linux 6.7): outside nothing
changes, and whatever they start ends with them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NATIVE, EMULATED = "amd64", "arm64"
# Not bookworm's qemu 7.2: ONNX Runtime crashes in it.
QEMU_FROM = "trixie"
PROCESSOR = "cortex-a76"  # of a Raspberry Pi 5
# What Raspberry Pi OS Lite has of what an overlay's install.sh and its wheels ask for.
PACKAGES = ("bash", "ca-certificates", "coreutils", "dash", "libc-bin", "libgomp1", "libstdc++6", "python3", "tar")
NO_MIRROR = ("Failed to fetch", "Could not resolve", "Could not connect", "Temporary failure", "Unable to connect")

BINFMT = "/proc/sys/fs/binfmt_misc"
# qemu-user-binfmt's line for aarch64. O: programs are handed over opened, C: as the caller, F: qemu is opened here and now.
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
NAMESPACES = ("--user", "--map-root-user", "--mount", "--net", "--pid", "--fork", "--kill-child", "--ipc", "--uts")
ENTER = f"""
root=$1 qemu=$2; shift 2
if [ -n "$qemu" ]; then
    mount -t binfmt_misc binfmt_misc {BINFMT}
    printf %s ":qemu-aarch64:M::{MAGIC}:{MASK}:$qemu:OCF" > {BINFMT}/register
fi
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
exec chroot "$root" "$@"
"""


class Unavailable(Exception):
    """What this machine lacks, in one line."""


@dataclass(frozen=True)
class Root:
    """A system in a folder. qemu: what runs its programs, None where the processor does."""

    folder: Path
    qemu: Path | None = None

    def command(self, *arguments: str) -> list[str]:
        """What runs a command in it."""
        inside = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"]
        inside += ["OPENBLAS_NUM_THREADS=1", *([f"QEMU_CPU={PROCESSOR}"] if self.qemu else [])]
        enter = ["sh", "-ec", ENTER, "sh", str(self.folder), str(self.qemu or "")]
        return ["unshare", *NAMESPACES, *enter, *inside, *arguments]

    def run(self, *arguments: str, timeout_s: float = 600, code: int = 0) -> str:
        """What a command prints. AssertionError where it ends with another exit code."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=timeout_s, check=False)
        assert done.returncode == code, f"{' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def take(self, path: Path, inside: str) -> None:
        """Copy a file or a folder into it."""
        there = self.folder / inside.lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, there, dirs_exist_ok=True)
        else:
            shutil.copy(path, there)


def emulator(folder: Path) -> Path:
    """The path of qemu-aarch64, fetched; it is one static program. Raises Unavailable."""
    _check_machine()
    unpacked, qemu = folder / "qemu_package", folder / "qemu-aarch64"
    _unpack(QEMU_FROM, NATIVE, ("qemu-user",), unpacked)
    shutil.copy(unpacked / "usr/bin/qemu-aarch64", qemu)
    shutil.rmtree(unpacked)
    return qemu


def make_root(folder: Path, suite: str, packages: Sequence[str] = (), qemu: Path | None = None) -> Root:
    """A system with Python, and these packages. Raises Unavailable."""
    _check_machine()
    _unpack(suite, EMULATED if qemu else NATIVE, (*PACKAGES, *packages), folder)
    root = Root(folder, qemu)
    try:
        root.run("true", timeout_s=60)
    except AssertionError as error:
        reason = str(error).strip().splitlines()[-1]
        raise Unavailable(f"needs user namespaces with binfmt_misc of their own (Linux 6.7): {reason}") from error
    return root


def _check_machine() -> None:
    if missing := [name for name in ("mmdebstrap", "unshare") if shutil.which(name) is None]:
        raise Unavailable(f"{missing[0]} is missing: apt-get install mmdebstrap util-linux")
    if os.uname().machine != "x86_64":
        raise Unavailable(f"compares arm64 with x86-64, and this is {os.uname().machine}")
    if os.geteuid() != 0:
        raise Unavailable("unpacking a Debian system needs root: sudo make test-arm64")


def _unpack(suite: str, architecture: str, packages: Sequence[str], folder: Path) -> None:
    what = [f"--architectures={architecture}", f"--include={','.join(packages)}", suite, str(folder)]
    command = ["mmdebstrap", "--variant=extract", *what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode == 0:
        return
    if any(text in done.stderr for text in NO_MIRROR):
        raise Unavailable("no Debian mirror answers")
    raise RuntimeError(f"{' '.join(command)}:\n{done.stderr}")

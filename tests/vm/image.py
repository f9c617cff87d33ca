"""The disk of the virtual machine: Debian with systemd and the vivid camera, made once and kept.

mmdebstrap makes the root, mke2fs the file system out of it: nothing is mounted, no partition table is needed, and qemu
boots the kernel that lies beside the disk.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(os.environ.get("VM_CACHE", "/var/tmp/edge-vad-vm"))
GUEST = Path(__file__).parent / "guest"
SUITE = "trixie"
# dbus and libnss-systemd are on every Raspberry Pi OS; minbase leaves them out.
PACKAGES = "systemd systemd-sysv udev kmod dbus libnss-systemd python3 v4l-utils zstd linux-image-amd64"
SIZE = "3G"  # sparse
FILES = {
    "etc/hostname": "vm\n",
    "etc/fstab": "/dev/vda / ext4 errors=remount-ro 0 1\n",
    # A webcam: the input that has low frame rates, which emulation can follow.
    "etc/modules-load.d/vivid.conf": "vivid\n",
    "etc/modprobe.d/vivid.conf": "options vivid n_devs=1 node_types=0x1 num_inputs=1 input_types=0x0\n",
    "etc/systemd/journald.conf.d/vm.conf": "[Journal]\nStorage=volatile\n",
    "opt/vm/agent.py": (GUEST / "agent.py").read_text(encoding="utf-8"),
    "etc/systemd/system/vm-agent.service": (GUEST / "vm-agent.service").read_text(encoding="utf-8"),
}
# Every second of a boot costs twenty under emulation.
MASKED = "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer"
UNUSED = "getty@tty1.service serial-getty@ttyS0.service systemd-update-utmp.service"
INITRAMFS = 'mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d" && '
INITRAMFS += 'echo MODULES=list > "$1/etc/initramfs-tools/conf.d/vm.conf" && '
INITRAMFS += 'printf "virtio_pci\\nvirtio_blk\\next4\\n" > "$1/usr/share/initramfs-tools/modules.d/vm"'


@dataclass(frozen=True)
class Image:
    """A folder with what qemu boots."""

    folder: Path

    @property
    def disk(self) -> Path:
        """The root file system, raw ext4."""
        return self.folder / "disk.raw"

    @property
    def kernel(self) -> Path:
        """Debian's kernel."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Its first file system, with the drivers of the disk alone."""
        return self.folder / "initrd.img"


def image() -> Image:
    """The image of this recipe; made when it is not there, which takes minutes and a Debian mirror."""
    recipe = "\n".join([SUITE, PACKAGES, SIZE, MASKED, UNUSED, INITRAMFS, *(f"{k}\n{v}" for k, v in FILES.items())])
    made = Image(CACHE / hashlib.sha256(recipe.encode()).hexdigest()[:12])
    if not made.folder.exists():
        _make(made.folder)
    return made


def _make(folder: Path) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=CACHE))
    root = work / "root"
    packages = ",".join(PACKAGES.split())
    hook = ["--essential-hook", INITRAMFS]
    _run("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", f"--include={packages}", *hook, SUITE, str(root))
    _configure(root)
    shutil.copy(next(root.glob("boot/vmlinuz-*")), work / "vmlinuz")
    shutil.copy(next(root.glob("boot/initrd.img-*")), work / "initrd.img")
    _run(
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-E",
        "lazy_itable_init=0,lazy_journal_init=0",
        "-d",
        str(root),
        str(work / "disk.raw"),
        SIZE,
    )
    shutil.rmtree(root)
    work.rename(folder)


def _configure(root: Path) -> None:
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    system = root / "etc/systemd/system"
    for name in f"{MASKED} {UNUSED}".split():
        (system / name).unlink(missing_ok=True)
        (system / name).symlink_to("/dev/null")
    (system / "basic.target.wants").mkdir(exist_ok=True)
    (system / "basic.target.wants/vm-agent.service").symlink_to("../vm-agent.service")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr[-2000:]}")
